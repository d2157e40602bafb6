"""Sample pictures drawn while training, always of the same prompt and seed, so that they can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
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


class SampleDrawer:
    """Draws one picture with the current or with given weights and keeps it in the run's folder.

    Args:
        trainer: Its weights are used.
        denoiser: What it trains.
        cached: Conditioning of (sample prompt, negative), or None when the text encoder is trained.
        load_vae: The VAE is loaded for each picture and let go, so that training does not carry it along.
        folder: Where pictures go.
        progress: Shown the picture.
    """

    def __init__(self, trainer: Trainer, denoiser: UNetDenoiser, cached: tuple[TextBatch, TextBatch] | None,
                 load_vae: Callable[[], AutoencoderKL], folder: RunFolder, progress: Progress) -> None:
        self.trainer, self.denoiser, self.cached = trainer, denoiser, cached
        self.load_vae, self.folder, self.progress = load_vae, folder, progress
        item, config = trainer.sampler.items[0], trainer.request.samples
        # Small pictures can be trained on, but none below 64 pixels are drawn.
        width, height = max(64, item.width * 8), max(64, item.height * 8)
        self.options = SamplingOptions(width, height, config.sample_steps, config.sample_cfg)

    @torch.no_grad()
    def __call__(self, step: int, weights: list[Tensor] | None = None) -> None:
        """Draw the picture of optimiser step `step`, with the trainer's current weights if none are given."""
        trainer, denoiser, adapters = self.trainer, self.denoiser, self.trainer.adapters
        self.progress.phase("sampling", self.options.steps)
        adapters.train(False)
        kept = adapters.snapshot()
        adapters.load(trainer.current if weights is None else weights)
        try:
            positive, negative = self.cached or encode_prompts(denoiser.text, trainer.request.samples)
            latents = sample(denoiser.unet, denoiser.scheduler_config, positive, negative, [trainer.request.seed],
                             self.options, self.progress, self.progress.advance)
            picture = decode(self.load_vae(), latents)[0]
        finally:
            adapters.load(kept)
        with atomic_file(self.folder.sample(step)) as part:
            picture.save(part, "PNG")
        self.progress.preview(picture)


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
