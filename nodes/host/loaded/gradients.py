"""Have the host's networks compute with operations that have gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import comfy.model_management as management
import comfy.quant_ops as quant_ops
from comfy.ldm.modules.attention import attention_pytorch

_FUSED = ("rms_", "apply_rope", "adaln")
"""What the names of the host's fused kernels for norms, rotary embeddings and modulation begin with. They are custom
operations without a backward pass; most networks avoid them while the host trains, but not all."""


def plain_attention(chosen: object, *args: Any, **kwargs: Any) -> Any:
    """PyTorch's attention instead of the one that the host was started with, of which some (Sage, Flash, int8) have no
    backward pass. The host asks for it by `transformer_options["optimized_attention_override"]`."""
    return attention_pytorch(*args, **kwargs)


@contextmanager
def in_training() -> Iterator[None]:
    """Tell the host that it trains, and put plain operations for its fused kernels."""
    before, kernels = management.in_training, getattr(quant_ops, "ck", None)
    fused = _fused(kernels) if isinstance(kernels, ModuleType) else {}
    management.in_training = True
    for name, (_, plain) in fused.items():
        setattr(kernels, name, plain)
    try:
        yield
    finally:
        management.in_training = before
        for name, (kernel, _) in fused.items():
            setattr(kernels, name, kernel)


def _fused(kernels: ModuleType) -> dict[str, tuple[Any, Any]]:
    """The fused kernels in the host's package, some of whose networks call them there without asking whether it trains,
    and the package's own implementations in plain PyTorch, by name."""
    from comfy_kitchen.backends import eager

    return {name: (getattr(kernels, name), getattr(eager, name)) for name in dir(kernels)
            if name.startswith(_FUSED) and hasattr(eager, name)}
