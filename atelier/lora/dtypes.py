"""Types in which LoRA files are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import AtelierError

if TYPE_CHECKING:
    import torch

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""torch's names by the short ones. The last two make a file half as large."""


def torch_dtype(name: str) -> torch.dtype:
    """torch's type of a short name.

    Raises:
        AtelierError: there is no such type.
    """
    import torch

    if name not in DTYPES:
        raise AtelierError(f"The type {name!r} is not one that LoRA files are stored in.",
                           f"Choose one of: {', '.join(DTYPES)}.")
    return getattr(torch, DTYPES[name])
