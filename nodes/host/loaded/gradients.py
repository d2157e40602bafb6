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
    management.in_training = True
    if isinstance(kernels, ModuleType):
        quant_ops.ck = _WithGradients(kernels)
    try:
        yield
    finally:
        management.in_training = before
        if kernels is not None:
            quant_ops.ck = kernels


class _WithGradients:
    """The package of the host's kernels, of which the fused ones are its own implementations in plain PyTorch."""

    def __init__(self, kernels: ModuleType) -> None:
        self._kernels = kernels

    def __getattr__(self, name: str) -> Any:
        if name.startswith(_FUSED):
            from comfy_kitchen.backends import eager

            return getattr(eager, name)
        return getattr(self._kernels, name)
