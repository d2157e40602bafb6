"""The training objective of denoising diffusion, in the papers' symbols.

With ᾱ_t the cumulative signal level of timestep t (Ho et al. 2020, https://arxiv.org/abs/2006.11239, equation 4):

    x_t = √ᾱ_t · x_0 + √(1 − ᾱ_t) · ε                        the noisy latent
    target = ε                                                prediction type "epsilon"
    target = √ᾱ_t · ε − √(1 − ᾱ_t) · x_0                      "v_prediction" (https://arxiv.org/abs/2202.00512)
    SNR(t) = ᾱ_t / (1 − ᾱ_t)

Shapes: latents, noise and predictions [B, 4, h, w]; timesteps [B]; weights [B]; masks [B, 1, h, w].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import AtelierError


@dataclass(frozen=True)
class Objective:
    """Noising, target and loss weight for one noise schedule."""

    alphas_cumprod: Tensor
    """ᾱ_t, [T], float32, on the training device."""
    prediction_type: str
    min_snr_gamma: float = 0.0

    @staticmethod
    def of(scheduler_config: Mapping[str, Any], device: torch.device, *, min_snr_gamma: float = 0.0) -> Objective:
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
        return Objective(scheduler.alphas_cumprod.to(device, torch.float32), kind, min_snr_gamma)

    @property
    def timesteps(self) -> int:
        """T, the number of timesteps of the schedule."""
        return self.alphas_cumprod.shape[0]

    def noisy(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t of `latents` x_0 and `noise` ε."""
        signal, spread = self._levels(t)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the UNet should predict at x_t."""
        if self.prediction_type == "epsilon":
            return noise
        signal, spread = self._levels(t)
        return signal * noise - spread * latents

    def loss(self, prediction: Tensor, target: Tensor, t: Tensor, *, weights: Tensor, mask: Tensor | None = None
             ) -> Tensor:
        """Mean over the batch of each sample's (masked) mean squared error times its weight. A scalar.

        With `min_snr_gamma` γ each sample also counts min(SNR, γ) / SNR (epsilon) or min(SNR, γ) / (SNR + 1)
        (v_prediction): Hang et al. 2023, https://arxiv.org/abs/2303.09556, section 3.4.
        """
        if self.min_snr_gamma > 0:
            weights = weights * self._snr_weight(t)
        return (squared_error(prediction, target, mask) * weights).mean()

    def _levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        level = self.alphas_cumprod[t].reshape(-1, 1, 1, 1)
        return level.sqrt(), (1 - level).sqrt()

    def _snr_weight(self, t: Tensor) -> Tensor:
        level = self.alphas_cumprod[t]
        # At zero terminal SNR the epsilon weight is 0 / 0; its limit is 1.
        snr = (level / (1 - level)).clamp(min=1e-12)
        capped = snr.clamp(max=self.min_snr_gamma)
        return capped / snr if self.prediction_type == "epsilon" else capped / (snr + 1)


def squared_error(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Each sample's mean squared error, [B], over what its mask lets count; 0 where that is nothing."""
    error = (prediction.float() - target.float()).square()
    if mask is None:
        return error.mean(dim=(1, 2, 3))
    return (error * mask).sum(dim=(1, 2, 3)) / (mask.sum(dim=(1, 2, 3)) * error.shape[1]).clamp(min=1e-6)
