"""The training objective of a model that the host has loaded, derived from the host's own noise process.

The host turns a network's output into a denoised latent by x̂₀ = a(x, σ) + b(σ) · output, with x the noisy latent and b
its slope (−σ for epsilon and for flow matching, other values for v-prediction, EDM or negated outputs). So the squared
error of the output itself is

    ‖(x̂₀ − x₀) / b(σ)‖²

whatever the network predicts: of ε (Ho et al. 2020), v (Salimans and Ho 2022) or the velocity ε − x₀ (Lipman et al.
2022). The error of x̂₀ would weigh it by b² and hardly train low noise levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.model_sampling
import torch
from torch import Tensor

from ....atelier.errors import AtelierError
from ....atelier.train.flow_objective import FlowObjective, shift_for, squeezed
from ....atelier.train.objective import min_snr_weight, squared_error, trained_timesteps
from ....atelier.train.pixel_loss import SQUARED, PixelLoss
from ....atelier.train.request.levels import LevelConfig


@dataclass(frozen=True)
class HostObjective:
    """An `Objective` (see `atelier.train.objective`): levels are the host's σ, the prediction is x̂₀, the target x₀."""

    sampling: Any
    """The host's `model_sampling`."""
    levels: LevelConfig
    pixels_per_latent: int
    """Of a side: 8 for most VAEs."""
    min_snr_gamma: float = 0.0
    """Diffusion models alone."""
    pixel_loss: PixelLoss = SQUARED

    @property
    def is_discrete(self) -> bool:
        """Whether it was trained at the timesteps of a noise schedule, as Stable Diffusion."""
        return isinstance(self.sampling, comfy.model_sampling.ModelSamplingDiscrete)

    def check(self) -> None:
        """Refuse a process of which nothing can be learnt.

        Raises:
            AtelierError: the network's output is the picture itself.
        """
        if isinstance(self.sampling, comfy.model_sampling.X0 | comfy.model_sampling.IMG_TO_IMG_FLOW):
            raise AtelierError("This model turns one picture into another and knows no noise.",
                               "Load a model that makes pictures from noise.")

    def draw_levels(self, count: int, stream: torch.Generator, size: tuple[int, int] = (0, 0)) -> Tensor:
        """`count` levels σ, float32, on the stream's device."""
        if self.is_discrete:
            timesteps = torch.randint(*self._trained, (count,), generator=stream, device=stream.device)
            return self.sampling.sigmas.to(stream.device)[timesteps]
        return self._sigma(self._plain.draw_levels(count, stream), size)

    def fixed_levels(self, count: int) -> list[float]:
        """The middles of `count` equal parts of what is trained of the process."""
        if self.is_discrete:
            low, high = self._trained
            return [float(self.sampling.sigmas[int(low + (index + 0.5) * (high - low) / count)])
                    for index in range(count)]
        return self._sigma(torch.tensor(self._plain.fixed_levels(count)), (0, 0)).tolist()

    def noisy(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The noisy latents, as the host's sampler would meet them."""
        return self.sampling.noise_scaling(levels, noise, latents)

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """x₀."""
        return latents

    def errors(self, prediction: Tensor, target: Tensor, levels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Each sample's mean squared error of the network's output, [B]."""
        slope = self._slope(levels, target)
        return squared_error(prediction.float() / slope, target.float() / slope, mask)

    def loss(self, prediction: Tensor, target: Tensor, levels: Tensor, *, weights: Tensor, mask: Tensor | None = None
             ) -> Tensor:
        """Mean over the batch of each sample's (masked) error times its weight. A scalar."""
        if self.min_snr_gamma > 0 and self.is_discrete:
            snr = levels.float().pow(-2).clamp(min=1e-12)
            velocity = isinstance(self.sampling, comfy.model_sampling.V_PREDICTION)
            weights = weights * min_snr_weight(snr, self.min_snr_gamma, velocity=velocity)
        slope = self._slope(levels, target)
        if self.is_discrete:
            ratio, place = levels, self.sampling.timestep(levels) / len(self.sampling.sigmas)
        elif isinstance(self.sampling, comfy.model_sampling.COSMOS_RFLOW):
            ratio, place = levels, levels / (1 + levels)
        else:
            ratio, place = levels / (1 - levels), levels
        losses = self.pixel_loss(prediction.float() / slope, target.float() / slope, mask, ratio, place)
        return (losses * weights).mean()

    @property
    def _limits(self) -> tuple[int, int]:
        return self.levels.min_timestep, self.levels.max_timestep

    @property
    def _trained(self) -> tuple[int, int]:
        return trained_timesteps(len(self.sampling.sigmas), self._limits)

    @property
    def _plain(self) -> FlowObjective:
        """Draws levels from 0 to 1, before any shift."""
        return FlowObjective(distribution=self.levels.level_distribution)

    def _sigma(self, plain: Tensor, size: tuple[int, int]) -> Tensor:
        sampling = self.sampling
        cosmos = isinstance(sampling, comfy.model_sampling.COSMOS_RFLOW)  # the same line, written as x₀ + σ ε
        if self.levels.level_shift == "model":
            sigma = torch.tensor([sampling.percent_to_sigma(1 - value) for value in plain.tolist()])
            if cosmos and self._limits != (0, 1000):
                even = squeezed(sigma / (1 + sigma), self._limits)
                sigma = even / (1 - even)
            elif not cosmos:
                sigma = squeezed(sigma, self._limits)
        else:
            shift = self.levels.shift_value
            if self.levels.level_shift == "resolution":
                shift = shift_for(_tokens(size, self.pixels_per_latent))
            sigma = squeezed(shift * plain / (1 + (shift - 1) * plain), self._limits)
            if cosmos:
                sigma = sigma / (1 - sigma)
        # At 0 there is nothing to denoise, and the slope is 0.
        return sigma.to(plain.device).clamp(float(sampling.sigma_min), float(sampling.sigma_max))

    def _slope(self, levels: Tensor, like: Tensor) -> Tensor:
        zero = torch.zeros_like(like[(slice(None), *[slice(0, 1)] * (like.dim() - 1))])
        denoised = self.sampling.calculate_denoised
        return denoised(levels, torch.ones_like(zero), zero) - denoised(levels, zero, zero)


def _tokens(size: tuple[int, int], pixels_per_latent: int) -> int:
    """Patches of 16 × 16 pixels, which all of these transformers read; of a square of 1024 pixels where the size is not
    known, so that levels of validation are the same for every picture."""
    height, width = size if all(size) else (1024 // pixels_per_latent,) * 2
    return max(1, height * width * pixels_per_latent**2 // 256)
