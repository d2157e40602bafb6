"""Counts the operations that a card would be given as kernels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

NO_KERNEL = {
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze", "squeeze", "alias",
    "detach", "as_strided", "split", "split_with_sizes", "chunk", "unbind", "_reshape_alias", "lift_fresh", "reshape",
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
"""They make or see memory, and compute nothing."""


class CountLaunches(TorchDispatchMode):
    """Counts operations by name. One over a list of tensors counts once, as a card has kernels for lists."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in NO_KERNEL:
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        return sum(self.calls.values())


class OneKernelAttention(torch.autograd.Function):
    """Stands for fused attention: a kernel forward and one backward. What it computes is not attention."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        return query.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = ctx.saved_tensors
        return grads[0].clone().view_as(query), torch.empty_like(key), torch.empty_like(value)
