"""LoRAs that start from parts of the weights they adapt: PiSSA and OLoRA.

PiSSA (Meng et al. 2024, https://arxiv.org/abs/2404.02948) starts A and B from the largest singular values of a weight,
OLoRA (Büyükakyüz 2024, https://arxiv.org/abs/2406.01775) from the first columns of its QR factors. Both take that part
out of the weight, so that the network does at first what it did. Here the weight stays, and the adapter's output is
that of B · A less that of the start, B₀ · A₀: the same function, which rounds to nothing in bfloat16 as well, and
which serves weights that are kept quantised. What is learnt is B · A − B₀ · A₀, a LoRA of twice the rank, which works
with the original weights as any other.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..lora.low_rank import largest_factors
from ..lora.weights import LoraModule


@torch.no_grad()
def principal_part(weight: Tensor, rank: int, scale: float, kind: str) -> tuple[Tensor, Tensor]:
    """A₀ [rank, in, …] and B₀ [out, rank, …] in float32 on the CPU, with scale · B₀ · A₀ a part of the weight.

    Args:
        weight: Of a linear or convolution layer.
        rank: Of the adapter. Beyond the smaller side of the weight the rest is zero.
        scale: That the adapter's output is multiplied with.
        kind: "pissa" or "olora".
    """
    matrix = weight.float().cpu().flatten(1).double()
    if kind == "pissa":
        factors = largest_factors(matrix, rank)
        root = (factors.values / scale).sqrt()
        left, right = factors.left * root, root[:, None] * factors.right
    else:
        left, right = torch.linalg.qr(matrix)
        left, right = left[:, :rank], right[:rank]
    missing = rank - len(right)
    left, right = functional.pad(left, (0, missing)).float(), functional.pad(right, (0, 0, 0, missing)).float()
    return right.reshape(rank, *weight.shape[1:]), left.reshape(*left.shape, *[1] * (weight.dim() - 2))


def subtract_start(layer: nn.Module, adapter: str, down: Tensor, up: Tensor) -> None:
    """Have PEFT's LoRA layer compute less what its adapter computed at the start.

    Args:
        layer: Changed in place.
        adapter: PEFT's name of it.
        down: A₀, in the type and on the device that the layer computes with.
        up: B₀.
    """
    layer.register_forward_hook(partial(_without_start, adapter, down, up))


def _without_start(adapter: str, down: Tensor, up: Tensor, layer: Any, inputs: tuple[Tensor, ...], output: Tensor
                   ) -> Tensor:
    if layer.disable_adapters:
        return output
    (given, *_), base = inputs, layer.get_base_layer()
    given = given.to(down.dtype)
    if isinstance(base, nn.Conv2d):
        start = functional.conv2d(functional.conv2d(given, down, None, base.stride, base.padding, base.dilation), up)
    else:
        start = functional.linear(functional.linear(given, down), up)
    return output - (layer.scaling[adapter] * start).to(output.dtype)


def learnt(module: LoraModule, down: Tensor, up: Tensor) -> LoraModule:
    """scale · (B · A − B₀ · A₀) as one LoRA."""
    return LoraModule(torch.cat([module.down, down]), torch.cat([module.up, -up], dim=1), 2 * module.alpha)
