"""Pictures to latents by the host's VAE, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.k_diffusion.sampling
import comfy.model_sampling
import comfy.samplers
import torch
from PIL import Image
from torch import Tensor

from ....atelier.dataset.encoders import finite, latent_row
from ....atelier.dataset.prepare import Prepared
from ....atelier.dataset.store import Row
from ....atelier.dataset.types import Sample
from ....atelier.errors import AtelierError
from ....atelier.progress import Progress
from ....atelier.train.request.outputs import SampleConfig
from ....atelier.train.samples import SamplePicture
from .denoiser import HostDenoiser


class HostPictureEncoder:
    """A `PictureEncoder`: the host's VAE, then the scale of the model's latents. The VAE gives the mean alone.

    Args:
        vae: The host's.
        latent_format: Of the model that is trained.
    """

    def __init__(self, vae: Any, latent_format: Any) -> None:
        self.vae, self.latent_format = vae, latent_format

    def __call__(self, samples: Sequence[Sample], pictures: Sequence[Prepared], flip: bool) -> list[Row]:
        """The rows; one picture at a time, since a VAE for videos takes a batch for one."""
        rows = []
        for sample, picture in zip(samples, pictures, strict=True):
            pixels = torch.tensor(picture.pixels)[None].float() / 255
            with torch.inference_mode():
                latents = self.latent_format.process_in(self.vae.encode(pixels.flip(2) if flip else pixels))
            mean = latents[0].float().cpu().clone()
            if not finite(mean):
                raise AtelierError(f"The VAE gives latents that are not finite for {sample.image}.",
                                   "Remove the picture if it is the only one; otherwise load another VAE.")
            rows.append(latent_row(picture, mean, torch.zeros_like(mean), flip))
        return rows


@dataclass(frozen=True, kw_only=True)
class HostPainter:
    """Draws the sample pictures (a `Paint`): Euler steps with guidance, as core's KSampler does them."""

    denoiser: HostDenoiser
    vae: Any
    config: SampleConfig
    positives: list[Row]
    """Of each sample prompt."""
    negative: Row
    latent_shape: tuple[int, ...]
    """Of one latent but for its last two sides: (channels,) or (channels, 1)."""

    def __call__(self, wanted: SamplePicture, progress: Progress, on_step: Callable[[int], None]) -> Image.Image:
        """The picture."""
        denoiser, sampling = self.denoiser, self.denoiser.sampling
        sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler_of(denoiser.model), self.config.sample_steps)
        sigmas = sigmas.to(denoiser.device)
        noise = torch.randn((1, *self.latent_shape, *wanted.size), generator=torch.Generator().manual_seed(wanted.seed))
        noise = noise.to(denoiser.device)
        start = sampling.noise_scaling(sigmas[0], noise, torch.zeros_like(noise), max_denoise=True)

        def tell(step: dict[str, Any]) -> None:
            progress.check()
            on_step(step["i"] + 1)

        latents = comfy.k_diffusion.sampling.sample_euler(self._guided(self.positives[wanted.prompt]), start, sigmas,
                                                          callback=tell, disable=True)
        latents = sampling.inverse_noise_scaling(sigmas[-1], latents)
        with torch.inference_mode():
            pixels = self.vae.decode(denoiser.model.process_latent_out(latents).cpu())
        return to_picture(pixels)

    def _guided(self, positive: Row) -> Callable[..., Tensor]:
        def denoise(noisy: Tensor, sigma: Tensor, **_: object) -> Tensor:
            rows = [positive] if self.config.sample_cfg == 1 else [positive, self.negative]
            found = self.denoiser.predict(self.denoiser.network, noisy.repeat(len(rows), *[1] * (noisy.dim() - 1)),
                                          sigma.expand(len(rows)), self._on_device(rows), ())
            return found[:1] if len(rows) == 1 else torch.lerp(found[1:], found[:1], self.config.sample_cfg)

        return denoise

    def _on_device(self, rows: Sequence[Row]) -> list[Row]:
        return [{name: tensor.to(self.denoiser.device) for name, tensor in row.items()} for row in rows]


def scheduler_of(model: Any) -> str:
    """Core's name of the noise levels that a host's model is drawn at: diffusion models at the timesteps that they were
    trained at."""
    discrete = isinstance(model.model_sampling, comfy.model_sampling.ModelSamplingDiscrete)
    return "normal" if discrete else "simple"


def to_picture(pixels: Tensor) -> Image.Image:
    """[1, H, W, C], or [1, T, H, W, C] of a VAE for videos, as a picture."""
    frame = pixels.reshape(-1, *pixels.shape[-3:])[0]
    return Image.fromarray((frame.float().clamp(0, 1) * 255).round().byte().cpu().numpy())
