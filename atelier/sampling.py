"""Denoising from seeded noise with components that are already loaded.

Used for sample pictures in training and by `atelier.generate`. The step rule is that of diffusers; this module adds
classifier-free guidance (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598): e = e_neg + cfg · (e_pos − e_neg).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import AtelierError
from .models.foreign_errors import explained
from .models.kinds import SamplerAdvice
from .progress import Progress

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from PIL.Image import Image

    from .models.text import TextBatch

MAX_SIDE = 4096
"""Pixels of a side. Attention's cost grows with the fourth power of it, and no model of these families was trained at
half of this."""
MAX_STEPS = 1000
"""Denoising steps; a noise schedule has no more."""

SAMPLERS = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "lms": ("LMSDiscreteScheduler", {}),
}
"""Sampler name to diffusers' scheduler class and the options it adds to the model's own configuration."""


@dataclass(frozen=True)
class SamplingOptions:
    """How to denoise.

    Raises:
        AtelierError: a value is out of range; the message names the field.
    """

    width: int = 512
    """Pixels; a multiple of 8."""
    height: int = 512
    steps: int = 20
    cfg: float = 7.0
    """Guidance scale; 1 leaves the negative prompt out and halves the work."""
    sampler: str = "euler"

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if not 64 <= getattr(self, name) <= MAX_SIDE or getattr(self, name) % 8:
                raise AtelierError(f"{name} is {getattr(self, name)}.",
                                   f"Choose a multiple of 8 from 64 to {MAX_SIDE}.")
        if not 1 <= self.steps <= MAX_STEPS:
            raise AtelierError(f"steps is {self.steps}.", f"Choose a number from 1 to {MAX_STEPS}.")
        if not math.isfinite(self.cfg):
            raise AtelierError(f"cfg is {self.cfg}.", "Choose a finite number; 7 is usual.")
        if self.sampler not in SAMPLERS:
            raise AtelierError(f"There is no sampler {self.sampler!r}.", f"Choose one of: {', '.join(SAMPLERS)}.")


def recommended(advice: SamplerAdvice) -> SamplingOptions:
    """The recommended options for a kind of model, with Euler in place of a sampler that this module does not have."""
    names = (f"{advice.sampler}_{advice.scheduler}", advice.sampler, "euler")
    sampler = next(name for name in names if name in SAMPLERS)
    return SamplingOptions(advice.size, advice.size, advice.steps, advice.cfg, sampler)


def make_scheduler(config: Mapping[str, Any], sampler: str, steps: int, device: torch.device) -> Any:
    """diffusers' scheduler for `sampler` on a model's noise schedule, with its timesteps for `steps`.

    Raises:
        AtelierError: schedule, sampler and number of steps do not go together.
    """
    import diffusers

    name, extra = SAMPLERS[sampler]
    with explained(f"The noise schedule of the model with {steps} steps of {sampler}",
                   "Choose fewer steps or another sampler, or download the model again."):
        scheduler = getattr(diffusers, name).from_config({**config, **extra})
        scheduler.set_timesteps(steps, device=device)
    return scheduler


@torch.no_grad()
def sample(unet: UNet2DConditionModel, scheduler_config: Mapping[str, Any], positive: TextBatch, negative: TextBatch,
           seeds: Sequence[int], options: SamplingOptions, progress: Progress,
           on_step: Callable[[int], None] = lambda done: None, further: Tensor | None = None) -> Tensor:
    """Latents for each row of `positive`.

    Args:
        unet: On its device, in its arithmetic type.
        scheduler_config: The model's noise schedule (`NoiseSchedule.as_config`).
        positive: Text conditioning of B prompts.
        negative: Of B negative prompts; unused at cfg 1.
        seeds: B seeds. The noise is drawn on the CPU for each seed alone, so a picture does not depend on its batch.
        options: Size, steps, guidance, sampler.
        progress: Asked before every step.
        on_step: Called after every step with the number of those that are done.
        further: [1, C, height / 8, width / 8], channels that the UNet is given behind the noisy latents: `all_hidden`
            for an inpainting model.

    Returns:
        [B, 4, height / 8, width / 8], float32, multiplied by the VAE's scaling factor.
    """
    device, dtype = unet.device, unet.dtype
    scheduler = make_scheduler(scheduler_config, options.sampler, options.steps, device)
    streams = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = (1, 4, options.height // 8, options.width // 8)
    latents = torch.cat([torch.randn(shape, generator=stream) for stream in streams]).to(device)
    latents = latents * scheduler.init_noise_sigma
    guided = options.cfg != 1
    embeds = torch.cat([negative.embeds, positive.embeds] if guided else [positive.embeds]).to(device, dtype)
    added = _added_conditions(positive, negative, options, guided, device, dtype)
    for done, t in enumerate(scheduler.timesteps, 1):
        progress.check()
        inputs = scheduler.scale_model_input(torch.cat([latents] * 2) if guided else latents, t)
        if further is not None:
            inputs = torch.cat([inputs, further.to(inputs).expand(len(inputs), -1, -1, -1)], dim=1)
        prediction = unet(inputs.to(dtype), t, embeds, added_cond_kwargs=added, return_dict=False)[0].float()
        if guided:
            without, with_prompt = prediction.chunk(2)
            prediction = without + options.cfg * (with_prompt - without)
        # Samplers that add noise draw it from the first picture's stream; the others ignore the generator.
        extra = {"generator": streams} if options.sampler == "euler_ancestral" else {}
        latents = scheduler.step(prediction, t, latents, return_dict=False, **extra)[0]
        on_step(done)
    return latents


@torch.no_grad()
def all_hidden(vae: AutoencoderKL, options: SamplingOptions) -> Tensor:
    """What an inpainting model is given to fill in a whole picture, [1, 5, height / 8, width / 8]: a mask of 1, and the
    scaled latents of the mid-grey picture that is left."""
    coder: Any = vae  # diffusers' decorators hide its methods' types
    grey = torch.zeros(1, 3, options.height, options.width, dtype=vae.dtype, device=vae.device)
    latents = coder.encode(grey).latent_dist.mean.float()
    latents = (latents - (vae.config["shift_factor"] or 0.0)) * vae.config["scaling_factor"]
    return torch.cat([torch.ones_like(latents[:, :1]), latents], dim=1)


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> list[Image]:
    """Pictures of scaled and shifted latents [B, 4, h, w], one after another, in the memory of one picture."""
    from PIL import Image as PILImage

    pictures = []
    for latent in latents:
        encoded = latent[None].to(vae.device, vae.dtype) / vae.config["scaling_factor"]
        if vae.config["shift_factor"]:
            encoded = encoded + vae.config["shift_factor"]
        pixels = vae.decode(encoded, return_dict=False)[0][0].float()
        bytes_ = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        pictures.append(PILImage.fromarray(bytes_))
    return pictures


def _added_conditions(positive: TextBatch, negative: TextBatch, options: SamplingOptions, guided: bool,
                      device: torch.device, dtype: torch.dtype) -> dict[str, Tensor] | None:
    """SDXL's pooled text and size ids: original size, crop corner, target size."""
    if positive.pooled is None:
        return None
    assert negative.pooled is not None
    pooled = torch.cat([negative.pooled, positive.pooled] if guided else [positive.pooled])
    ids = torch.tensor([[options.height, options.width, 0, 0, options.height, options.width]], dtype=dtype)
    return {"text_embeds": pooled.to(device, dtype), "time_ids": ids.repeat(len(pooled), 1).to(device)}
