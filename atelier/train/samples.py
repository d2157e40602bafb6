"""Sample pictures drawn while training, always of the same prompt and seed, so that they can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..files import atomic_file
from ..models.text import TextBatch, TextStack
from ..progress import Progress
from ..sampling import SamplingOptions, decode, sample
from .request.outputs import SampleConfig
from .run_folder import RunFolder
from .trainer import Trainer
from .unet_denoiser import UNetDenoiser

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from PIL.Image import Image


Paint = Callable[[tuple[int, int], Progress], "Image"]
"""Draws the sample picture with the weights as they are, for latents of a size (height, width); tells its denoising
steps, from 1 to `sample_steps`."""


class SampleDrawer:
    """Draws one picture with the current or with given weights and keeps it in the run's folder.

    Args:
        trainer: Its weights are used.
        paint: The model's way to draw.
        folder: Where pictures go.
        progress: Shown the picture.
    """

    def __init__(self, trainer: Trainer, paint: Paint, folder: RunFolder, progress: Progress) -> None:
        self.trainer, self.paint, self.folder, self.progress = trainer, paint, folder, progress

    @torch.no_grad()
    def __call__(self, step: int, weights: list[Tensor] | None = None) -> None:
        """Draw the picture of optimiser step `step`, with the trainer's current weights if none are given."""
        trainer, adapters, item = self.trainer, self.trainer.adapters, self.trainer.sampler.items[0]
        self.progress.phase("sampling", trainer.request.samples.sample_steps)
        adapters.train(False)
        with adapters.replaced(trainer.current if weights is None else weights):
            picture = self.paint((item.height, item.width), self.progress)
        with atomic_file(self.folder.sample(step)) as part:
            picture.save(part, "PNG")
        self.progress.preview(picture)


@dataclass(frozen=True)
class UNetPainter:
    """Draws the sample picture of Stable Diffusion: a `Paint`."""

    denoiser: UNetDenoiser
    config: SampleConfig
    seed: int
    cached: tuple[TextBatch, TextBatch] | None
    """Conditioning of (sample prompt, negative), or None when the text encoder is trained."""
    load_vae: Callable[[], AutoencoderKL]
    """The VAE is loaded for each picture and let go, so that training does not carry it along."""

    def __call__(self, size: tuple[int, int], progress: Progress) -> Image:
        """The picture."""
        config, denoiser = self.config, self.denoiser
        # Small pictures can be trained on, but none below 64 pixels are drawn.
        height, width = (max(64, side * 8) for side in size)
        options = SamplingOptions(width, height, config.sample_steps, config.sample_cfg)
        positive, negative = self.cached or encode_prompts(denoiser.text, config)
        latents = sample(denoiser.unet, denoiser.scheduler_config, positive, negative, [self.seed], options, progress,
                         progress.advance)
        return decode(self.load_vae(), latents)[0]


def encode_prompts(text: TextStack | None, config: SampleConfig) -> tuple[TextBatch, TextBatch]:
    """Conditioning of the sample prompt and of its negative."""
    assert text is not None
    return text.encode([config.sample_prompt]), text.encode([config.sample_negative])


def settings_digest(config: SampleConfig) -> str:
    """8 hex digits of what a sample picture shows (not of how often one is drawn); empty where none is wanted."""
    if not config.sample_prompt:
        return ""
    settings = {name: value for name, value in asdict(config).items() if name != "sample_every"}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
