"""What the loss of one forward pass is computed from: all of it drawn and copied before, so that the rest is work for
the device alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .denoiser import Conditions


@dataclass(frozen=True, kw_only=True)
class LossInputs:
    """B pictures of one size, at one noise level each."""

    noisy: Tensor
    """[B, C, …], float32."""
    target: Tensor
    """What should be predicted; as `noisy`."""
    levels: Tensor
    """[B], as the objective draws them."""
    weights: Tensor
    """[B] loss weights."""
    mask: Tensor | None
    """[B, 1, …] or None."""
    conditions: Conditions
    """B rows of tensors by name."""
    captions: tuple[str, ...]
    """B captions; only for a denoiser that encodes them."""

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in an order that the shapes determine."""
        mask = [] if self.mask is None else [self.mask]
        rows = [row[name] for row in self.conditions for name in sorted(row)]
        return [self.noisy, self.target, self.levels, self.weights, *mask, *rows]

    @property
    def shapes(self) -> tuple[object, ...]:
        """Equal for inputs that the same operations compute with."""
        return (self.mask is None, *(tuple(sorted(row)) for row in self.conditions),
                *((tuple(tensor.shape), tensor.dtype) for tensor in self.tensors))

    def copy(self) -> LossInputs:
        """The same values in memory of their own."""
        return replace(self, noisy=self.noisy.clone(), target=self.target.clone(), levels=self.levels.clone(),
                       weights=self.weights.clone(), mask=None if self.mask is None else self.mask.clone(),
                       conditions=tuple({name: tensor.clone() for name, tensor in row.items()}
                                        for row in self.conditions))

    @torch.no_grad()
    def fill(self, other: LossInputs) -> None:
        """Take the values of others of the same shapes."""
        for own, given in zip(self.tensors, other.tensors, strict=True):
            own.copy_(given, non_blocking=True)
