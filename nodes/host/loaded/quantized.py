"""The host's layers, whose weights are stored in types of their own (bfloat16, scaled float8, int8, nvfp4, mxfp8), made
fit for training."""

from __future__ import annotations

import types
from functools import cache
from typing import Any

import torch
from comfy.ops import CastWeightBiasOp
from torch import nn


def compute_in(model: Any, dtype: torch.dtype) -> None:
    """Have one of the host's models compute in a type, with weights that stay in their own and are cast when used."""
    model.manual_cast_dtype = dtype
    prepare_quantized(model.diffusion_model)
    for module in model.diffusion_model.modules():
        if hasattr(module, "comfy_cast_weights"):
            module.comfy_cast_weights = True


def prepare_quantized(network: nn.Module) -> None:
    """Let adapters be put on layers with quantised weights, which stay quantised in memory.

    The host's class for them is no `torch.nn.Linear`, which is what PEFT and the search for target layers look for,
    though it computes the same. And where the hardware can, it quantises the layer's input as well; training computes
    with the dequantised weights instead, as its gradients do.

    Args:
        network: The host's, changed in place.
    """
    for module in network.modules():
        if isinstance(module, CastWeightBiasOp) and _is_quantizable_linear(module):
            module.__class__ = _linear(type(module))
            module._full_precision_mm = True  # type: ignore[attr-defined]


def _is_quantizable_linear(module: Any) -> bool:
    return not isinstance(module, nn.Linear) and hasattr(module, "in_features") and hasattr(module, "layout_type")


@cache
def _linear(kind: type[nn.Module]) -> type[nn.Module]:
    """The host's class, which its instances can be turned into as long as it adds no slots."""
    bases: tuple[type, ...] = (kind, nn.Linear)
    return types.new_class("Linear", bases, exec_body=lambda body: body.update(__module__=kind.__module__))
