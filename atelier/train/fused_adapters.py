"""Fewer kernels for a graphics card, which at small batches waits for the host to launch them.

PEFT computes a LoRA layer by six kernels forward and some ten backward; as one autograd function it takes three and
five. diffusers divides the output of every attention and residual block by 1.0; here it does not.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_ADAPTER = "default"


class LoraLinear(torch.autograd.Function):
    """y = x·Wᵀ + b + scale · (x·Aᵀ)·Bᵀ, with gradients for x, A and B; W and b are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """Args: x [..., in]; weight [out, in]; bias [out]; a [rank, in]; b [out, rank]; all of one type."""
        rows = x.reshape(-1, x.shape[-1])
        y = torch.addmm(bias, rows, weight.t()) if bias is not None else rows @ weight.t()
        inner = rows @ a.t()
        ctx.save_for_backward(rows, weight, a, b, inner)
        ctx.scale, ctx.shape = scale, x.shape
        return torch.addmm(y, inner, b.t(), alpha=scale).view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of `forward`'s arguments."""
        rows, weight, a, b, inner = ctx.saved_tensors
        of_y = grads[0].reshape(-1, grads[0].shape[-1])
        of_inner, of_b = _product(of_y, b, ctx.scale), _product(of_y.t(), inner, ctx.scale)
        of_x = torch.addmm(of_y @ weight, of_inner, a).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return of_x, None, None, of_inner.t() @ rows, of_b, None


def _product(one: Tensor, other: Tensor, scale: float) -> Tensor:
    """scale · one·other in a single kernel: with `beta` 0, what it would add to is not read."""
    return torch.addmm(one.new_empty(()), one, other, beta=0, alpha=scale)


def fuse_adapters(module: nn.Module) -> int:
    """Compute plain LoRA layers of a module by `LoraLinear`; returns how many there are.

    Left as they are: DoRA, layers with dropout or with hooks on A (rank dropout), convolutions, and layers that are no
    plain `torch.nn.Linear` of the adapters' type, such as quantised ones. Names, parameters and files stay the same.
    """
    from peft.tuners.lora.layer import Linear

    found = [layer for layer in module.modules() if isinstance(layer, Linear) and _is_plain(layer)]
    for layer in found:
        layer.forward = partial(_forward, layer, layer.forward)
    return len(found)


def _is_plain(layer: Any) -> bool:
    base, a, dropout = layer.base_layer, layer.lora_A, layer.lora_dropout
    return (list(a) == [_ADAPTER] and type(base) is nn.Linear and "forward" not in vars(base) and not layer.lora_variant
            and isinstance(dropout[_ADAPTER], nn.Identity) and not a[_ADAPTER]._forward_hooks
            and base.weight.dtype == a[_ADAPTER].weight.dtype)


def _forward(layer: Any, plain: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    base, a, b = layer.base_layer, layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight
    if args or kwargs or layer.disable_adapters or layer.merged or x.dtype != a.dtype:
        return plain(x, *args, **kwargs)
    # The base layer's weight is asked for each time: it may wait in main memory between two passes.
    result: Any = LoraLinear.apply(x, base.weight, base.bias, a, b, layer.scaling[_ADAPTER])
    return result


class _One:
    """Divides nothing: `tensor / _One()` is the tensor. Otherwise it is the number 1."""

    def __rtruediv__(self, other: Any) -> Any:
        return other

    def __float__(self) -> float:
        return 1.0

    def __eq__(self, other: object) -> bool:
        return other == 1

    def __hash__(self) -> int:
        return hash(1.0)

    def __repr__(self) -> str:
        return "1.0"


def drop_divisions(module: nn.Module) -> None:
    """Have diffusers' attention and residual blocks divide by nothing where they would divide by 1.0."""
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import ResnetBlock2D

    for inner in module.modules():
        if isinstance(inner, Attention | ResnetBlock2D):
            name = "rescale_output_factor" if isinstance(inner, Attention) else "output_scale_factor"
            if getattr(inner, name) == 1:
                setattr(inner, name, _One())
