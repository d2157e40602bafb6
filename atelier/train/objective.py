"""The training objective of denoising diffusion, in the papers' symbols.

With ᾱ_t the cumulative signal level of timestep t (Ho et al. 2020, https://arxiv.org/abs/2006.11239, equation 4):

    x_t = √ᾱ_t · x_0 + √(1 − ᾱ_t) · ε                        the noisy latent
    target = ε                                                prediction type "epsilon"
    target = √ᾱ_t · ε − √(1 − ᾱ_t) · x_0                      "v_prediction" (https://arxiv.org/abs/2202.00512)
    SNR(t) = ᾱ_t / (1 − ᾱ_t)

Shapes: latents, noise and predictions [B, C, …], such as [B, 4, h, w]; noise levels [B]; weights [B]; masks [B, 1, …].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import AtelierError
from .pixel_loss import SQUARED, PixelLoss, masked_mean


class Objective(Protocol):
    """A noise process, and the loss of a network's prediction in it. What a noise level is (a timestep, a σ) only the
    objective and the network know."""

    def draw_levels(self, count: int, stream: torch.Generator, size: tuple[int, int]) -> Tensor:
        """Random noise levels for training, [count], on the stream's device; for latents of `size` (height, width),
        where that matters."""
        ...

    def fixed_levels(self, count: int) -> Sequence[float]:
        """Levels for validation: evenly spread over the process, the same each time."""
        ...

    def noisy(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The noisy latents."""
        ...

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """What the network should predict there."""
        ...

    def errors(self, prediction: Tensor, target: Tensor, levels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Each sample's (masked) error, [B], without weighting: what validation compares."""
        ...

    def loss(self, prediction: Tensor, target: Tensor, levels: Tensor, *, weights: Tensor, mask: Tensor | None = None
             ) -> Tensor:
        """Mean over the batch of each sample's weighted error. A scalar."""
        ...


@dataclass(frozen=True)
class DiffusionObjective:
    """Noising, target and loss weight for one noise schedule. Its noise levels are timesteps."""

    alphas_cumprod: Tensor
    """ᾱ_t, [T], float32, on the training device."""
    prediction_type: str
    min_snr_gamma: float = 0.0
    pixel_loss: PixelLoss = SQUARED
    limits: tuple[int, int] = (0, 1000)
    """The timesteps that are trained, in thousandths of the schedule."""

    @staticmethod
    def of(scheduler_config: Mapping[str, Any], device: torch.device, *, min_snr_gamma: float = 0.0,
           pixel_loss: PixelLoss = SQUARED, limits: tuple[int, int] = (0, 1000)) -> DiffusionObjective:
        """From a model's own scheduler configuration (betas, prediction type, zero terminal SNR).

        Raises:
            AtelierError: the prediction type is neither epsilon nor v_prediction.
        """
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        scheduler: Any = DDPMScheduler.from_config(dict(scheduler_config))
        kind = scheduler.config["prediction_type"]
        if kind not in ("epsilon", "v_prediction"):
            raise AtelierError(f"The model's scheduler predicts {kind!r}.",
                               "Only epsilon and v_prediction models can be trained; choose another model.")
        return DiffusionObjective(scheduler.alphas_cumprod.to(device, torch.float32), kind, min_snr_gamma,
                                  pixel_loss, limits)

    @property
    def timesteps(self) -> int:
        """T, the number of timesteps of the schedule."""
        return self.alphas_cumprod.shape[0]

    def draw_levels(self, count: int, stream: torch.Generator, size: tuple[int, int] = (0, 0)) -> Tensor:
        """`count` timesteps of those that are trained, all equally likely; int64."""
        return torch.randint(*trained_timesteps(self.timesteps, self.limits), (count,), generator=stream,
                             device=stream.device)

    def fixed_levels(self, count: int) -> list[int]:
        """The middles of `count` equal parts of the timesteps that are trained."""
        low, high = trained_timesteps(self.timesteps, self.limits)
        return [int(low + (index + 0.5) * (high - low) / count) for index in range(count)]

    def noisy(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """x_t of `latents` x_0 and `noise` ε."""
        signal, spread = self._levels(levels, latents)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """What the UNet should predict at x_t."""
        if self.prediction_type == "epsilon":
            return noise
        signal, spread = self._levels(levels, latents)
        return signal * noise - spread * latents

    def loss(self, prediction: Tensor, target: Tensor, levels: Tensor, *, weights: Tensor, mask: Tensor | None = None
             ) -> Tensor:
        """Mean over the batch of each sample's (masked) mean loss times its weight. A scalar.

        With `min_snr_gamma` γ each sample also counts min(SNR, γ) / SNR (epsilon) or min(SNR, γ) / (SNR + 1)
        (v_prediction): Hang et al. 2023, https://arxiv.org/abs/2303.09556, section 3.4.
        """
        if self.min_snr_gamma > 0:
            weights = weights * self._snr_weight(levels)
        level = self.alphas_cumprod[levels]
        losses = self.pixel_loss(prediction, target, mask, ((1 - level) / level).sqrt(), levels / self.timesteps)
        return (losses * weights).mean()

    def errors(self, prediction: Tensor, target: Tensor, levels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Each sample's mean squared error, [B]."""
        return squared_error(prediction, target, mask)

    def _levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        level = broadcast(self.alphas_cumprod[t], like)
        return level.sqrt(), (1 - level).sqrt()

    def _snr_weight(self, t: Tensor) -> Tensor:
        level = self.alphas_cumprod[t]
        # At zero terminal SNR the epsilon weight is 0 / 0; its limit is 1.
        snr = (level / (1 - level)).clamp(min=1e-12)
        return min_snr_weight(snr, self.min_snr_gamma, velocity=self.prediction_type == "v_prediction")


def min_snr_weight(snr: Tensor, gamma: float, *, velocity: bool) -> Tensor:
    """min(SNR, γ) / SNR, or of a v-prediction min(SNR, γ) / (SNR + 1): section 3.4 of
    https://arxiv.org/abs/2303.09556."""
    capped = snr.clamp(max=gamma)
    return capped / (snr + 1) if velocity else capped / snr


def broadcast(values: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, …] with as many dimensions as `like`."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def squared_error(prediction: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Each sample's mean squared error, [B], over what its mask lets count; 0 where that is nothing."""
    return masked_mean((prediction.float() - target.float()).square(), mask)


def trained_timesteps(count: int, limits: tuple[int, int]) -> tuple[int, int]:
    """The first timestep that is trained and the one behind the last, of `count`; at least one is.

    Args:
        count: Of the schedule.
        limits: In thousandths of it.
    """
    low = min(limits[0] * count // 1000, count - 1)
    return low, max(low + 1, limits[1] * count // 1000)
