"""The loss scale of float16: the loss is multiplied by it, so that small gradients do not become zero.

It is halved when a step's gradients overflow, and doubled after `GROWTH_STEPS` steps in which none did (Micikevicius et
al. 2018, https://arxiv.org/abs/1710.03740, section 3.2). Everything stays on the device: the host waits for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 2.0 ** 16
"""The first scale, and the largest: float16 ends at 65 504."""
SMALLEST = 2.0
"""Gradients that overflow at this scale are no matter of scale."""
GROWTH_STEPS = 100
"""So many steps without overflow double the scale; a run of a thousand steps gets back what early overflows took."""


@dataclass(frozen=True)
class LossScale:
    """The scale of one step. Immutable: `after` returns the next step's."""

    value: Tensor
    """A scalar, float32; 1 where no scale is needed."""
    steps: Tensor
    """Steps without overflow since the last change; a scalar, int32."""
    on: bool
    """Whether there is one: in float16 alone."""

    @staticmethod
    def of(dtype: torch.dtype, device: torch.device) -> LossScale:
        """The first step's, for gradients of type `dtype`."""
        on = dtype == torch.float16
        return LossScale.restored(LARGEST if on else 1.0, 0, device)

    @staticmethod
    def restored(value: float, steps: int, device: torch.device | str = "cpu") -> LossScale:
        """From the numbers that `numbers` gave."""
        return LossScale(torch.tensor(value, device=device), torch.tensor(steps, dtype=torch.int32, device=device),
                         value != 1.0)

    def numbers(self) -> tuple[float, int]:
        """(`value`, `steps`), which waits for the device."""
        return self.value.item(), int(self.steps.item())

    def to(self, device: torch.device) -> LossScale:
        """On another device."""
        return LossScale(self.value.to(device), self.steps.to(device), self.on)

    @property
    def exhausted(self) -> Tensor:
        """Whether it can be halved no more. A scalar, bool."""
        return self.value <= SMALLEST

    def after(self, finite: Tensor) -> LossScale:
        """The next step's scale, given whether this step's gradients were finite (a scalar, bool)."""
        steps = torch.where(finite, self.steps + 1, 0)
        grows = steps >= GROWTH_STEPS
        value = torch.where(finite, torch.where(grows, self.value * 2, self.value), self.value / 2)
        return LossScale(value.clamp(SMALLEST, LARGEST), torch.where(grows, 0, steps).to(torch.int32), True)
