"""Flow matching along straight lines, in the papers' symbols.

With σ from 0 (the picture) to 1 (noise), as in Lipman et al. 2022 (https://arxiv.org/abs/2210.02747) and Liu et al.
2022 (https://arxiv.org/abs/2209.03003):

    x_σ = (1 − σ) · x_0 + σ · ε                              the noisy latent
    target = ε − x_0                                          its velocity

Shapes: latents, noise and predictions [B, C, …]; levels σ [B].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import AtelierError
from .objective import broadcast, squared_error
from .pixel_loss import SQUARED, PixelLoss
from .request.levels import DISTRIBUTIONS


@dataclass(frozen=True, kw_only=True)
class FlowObjective:
    """Noise levels, noising, target and loss of a flow-matching model. An `Objective` (see `atelier.train.objective`).

    Raises:
        AtelierError: a value is out of range; the message names the field.
    """

    distribution: str = "logit_normal"
    """How σ is drawn before the shift: "uniform", or "logit_normal": the sigmoid of a normal number (Esser et al. 2024,
    https://arxiv.org/abs/2403.03206, section 3.1), which prefers the middle."""
    mean: float = 0.0
    """Of the normal number; above 0 prefers noise."""
    spread: float = 1.0
    """Its standard deviation."""
    pixel_loss: PixelLoss = SQUARED
    shift: float = 1.0
    """s in σ' = s σ / (1 + (s − 1) σ): above 1 moves all levels towards noise, as large pictures need (ibid., equation
    23)."""

    def __post_init__(self) -> None:
        if self.distribution not in DISTRIBUTIONS:
            raise AtelierError(f"distribution is {self.distribution!r}.", f"Choose {' or '.join(DISTRIBUTIONS)}.")
        if not (math.isfinite(self.mean) and 0 < self.spread < math.inf):
            raise AtelierError(f"mean and spread are {self.mean} and {self.spread}.",
                               "Choose finite numbers, the spread above 0.")
        if not 0 < self.shift < math.inf:
            raise AtelierError(f"shift is {self.shift}.", "Choose a number above 0; 1 shifts nothing.")

    def draw_levels(self, count: int, stream: torch.Generator, size: tuple[int, int] = (0, 0)) -> Tensor:
        """`count` levels σ, float32, on the stream's device."""
        if self.distribution == "uniform":
            plain = torch.rand(count, generator=stream, device=stream.device)
        else:
            normal = torch.randn(count, generator=stream, device=stream.device)
            plain = torch.sigmoid(self.mean + self.spread * normal)
        return self._shifted(plain)

    def fixed_levels(self, count: int) -> list[float]:
        """The middles of `count` equal parts of 0 to 1, shifted."""
        return self._shifted((torch.arange(count) + 0.5) / count).tolist()

    def noisy(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """x_σ of `latents` x_0 and `noise` ε."""
        sigma = broadcast(levels, latents)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The velocity ε − x_0."""
        return noise - latents

    def loss(self, prediction: Tensor, target: Tensor, levels: Tensor, *, weights: Tensor, mask: Tensor | None = None
             ) -> Tensor:
        """Mean over the batch of each sample's (masked) mean loss times its weight. A scalar."""
        return (self.pixel_loss(prediction, target, mask, levels / (1 - levels), levels) * weights).mean()

    def errors(self, prediction: Tensor, target: Tensor, levels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Each sample's mean squared error, [B]."""
        return squared_error(prediction, target, mask)

    def _shifted(self, sigma: Tensor) -> Tensor:
        return self.shift * sigma / (1 + (self.shift - 1) * sigma)


def squeezed(sigma: Tensor, limits: tuple[int, int]) -> Tensor:
    """Levels from 0 to 1 moved into `limits` along a straight line.

    Args:
        sigma: The levels.
        limits: The least and the most, in thousandths.
    """
    if limits == (0, 1000):
        return sigma
    low, high = limits
    return low / 1000 + (high - low) / 1000 * sigma


def shift_for(tokens: int, *, least: float = 0.5, most: float = 1.15, few: int = 256, many: int = 4096) -> float:
    """The shift of a picture of so many tokens (patches of its latent): e^μ, with μ on the line from (`few`, `least`)
    to (`many`, `most`), as FLUX.1 and its successors are sampled (github.com/black-forest-labs/flux, sampling.py)."""
    return math.exp(least + (most - least) * (tokens - few) / (many - few))
