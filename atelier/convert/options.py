"""The options of a conversion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import AtelierError
from ..models.families import PREDICTION_TYPES

if TYPE_CHECKING:
    from torch import Tensor

PRECISIONS = {"keep": None, "fp16": "F16", "bf16": "BF16", "fp32": "F32", "fp8": "F16"}
"""Choices of precision and safetensors' names for them; of fp8, for what `convert.scaled` leaves as it is."""

FOLDER_PRECISIONS = tuple(name for name in PRECISIONS if name != "fp8")
"""Those of a diffusers folder: diffusers reads no scaled float8."""

Merge = Callable[[str, str], "Callable[[Tensor], Tensor] | None"]
"""Changes weights while a checkpoint is written: given a component ("unet") and a tensor's diffusers name, it
returns a function that changes the tensor, or None. Unchanged tensors never enter memory."""


@dataclass(frozen=True)
class ConvertOptions:
    """Settings of a conversion.

    Raises:
        AtelierError: a value is not among the choices; the message names the field.
    """

    precision: str = "keep"
    """"keep", "fp16", "bf16", "fp32" or "fp8": the type of the weights that are written; see `convert.scaled` for the
    last, which only single files may have."""
    prune: bool = True
    """Leave out what no model reads: averaged (EMA) copies, optimiser states, constants. A diffusers folder has no
    place for them."""
    prediction_type: str = "auto"
    """"auto", "epsilon" or "v_prediction"; see `models.prediction` for what "auto" can know."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise AtelierError(f"precision is {self.precision!r}.", f"Choose one of: {', '.join(PRECISIONS)}.")
        if self.prediction_type not in ("auto", *PREDICTION_TYPES):
            raise AtelierError(f"prediction_type is {self.prediction_type!r}.",
                               f"Choose one of: auto, {', '.join(PREDICTION_TYPES)}.")
