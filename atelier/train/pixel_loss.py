"""The loss of a prediction's single numbers, over the noise levels: squares, or pseudo-Huber.

Pseudo-Huber (https://arxiv.org/abs/2403.16728) is a square below c and a straight line above it. Its c depends on the
noise level: large where there is little noise, `huber_c` at the most noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .request.recipe import LossConfig


@dataclass(frozen=True)
class PixelLoss:
    """The loss that `options` ask for."""

    options: LossConfig

    def __call__(self, prediction: Tensor, target: Tensor, mask: Tensor | None, ratio: Tensor, place: Tensor
                 ) -> Tensor:
        """Each sample's mean loss, [B], over what its mask lets count.

        Args:
            prediction: [B, C, …].
            target: Likewise.
            mask: [B, 1, …] or None.
            ratio: Noise over signal, √((1 − ᾱ) / ᾱ) or σ / (1 − σ): [B], from 0; infinity counts.
            place: Of the noise level in the process, from 0 (the picture) to 1: [B].
        """
        difference = prediction.float() - target.float()
        if self.options.loss == "mse":
            return masked_mean(difference.square(), mask)
        c = self._c(ratio, place).to(difference).reshape(-1, *[1] * (difference.dim() - 1))
        root = (difference.square() + c.square()).sqrt() - c
        return masked_mean(2 * (c * root if self.options.loss == "huber" else root), mask)

    def _c(self, ratio: Tensor, place: Tensor) -> Tensor:
        least = self.options.huber_c
        if self.options.huber_schedule == "exponential":
            return (place.float() * math.log(least)).exp()
        if self.options.huber_schedule == "snr":
            return least + (1 - least) / (1 + ratio.float()).square()
        return place.float() * 0 + least


SQUARED = PixelLoss(LossConfig())


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Each sample's mean, [B], over what its mask lets count; 0 where that is nothing."""
    others = tuple(range(1, values.dim()))
    if mask is None:
        return values.mean(dim=others)
    return (values * mask).sum(dim=others) / (mask.sum(dim=others) * values.shape[1]).clamp(min=1e-6)
