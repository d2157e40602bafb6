"""Sample pictures drawn while training, always of the same prompt and seed, so that they can be compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..files import atomic_file
from ..models.text import TextBatch, TextStack
from ..progress import Progress
from ..sampling import SamplingOptions, decode, sample
from .config import TrainingOptions
from .run_folder import RunFolder
from .trainer import Trainer

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL


class SampleDrawer:
    """Draws one picture with the current weights and keeps it in the run's folder.

    Args:
        trainer: Whose weights are shown.
        options: The sample prompt and how to draw it.
        cached: Conditioning of (sample prompt, negative), or None when the text encoder is trained.
        load_vae: The VAE is loaded for each picture and let go, so that training does not carry it along.
        store: Where pictures go.
        progress: Shown the picture.
    """

    def __init__(self, trainer: Trainer, options: TrainingOptions, cached: tuple[TextBatch, TextBatch] | None,
                 load_vae: Callable[[], AutoencoderKL], store: RunFolder, progress: Progress) -> None:
        self.trainer, self.options, self.cached = trainer, options, cached
        self.load_vae, self.store, self.progress = load_vae, store, progress
        item = trainer.order.items[0]
        # Small pictures can be trained on; drawn are none below 64 pixels.
        width, height = max(64, item.width * 8), max(64, item.height * 8)
        self.size = SamplingOptions(width, height, options.sample_steps, options.sample_cfg)

    @torch.no_grad()
    def __call__(self) -> None:
        """Draw now."""
        trainer, adapters = self.trainer, self.trainer.adapters
        self.progress.phase("sampling", self.size.steps)
        adapters.train(False)
        kept = adapters.snapshot()
        adapters.load(trainer.current)
        try:
            positive, negative = self.cached or encode_prompts(trainer.parts.text, self.options)
            latents = sample(trainer.parts.unet, trainer.parts.scheduler_config, positive, negative,
                             [trainer.config.seed], self.size, self.progress)
            picture = decode(self.load_vae(), latents)[0]
        finally:
            adapters.load(kept)
        with atomic_file(self.store.sample(trainer.step)) as part:
            picture.save(part, "PNG")
        self.progress.preview(picture)


def encode_prompts(text: TextStack | None, options: TrainingOptions) -> tuple[TextBatch, TextBatch]:
    """Conditioning of the sample prompt and of its negative."""
    assert text is not None
    return text.encode([options.sample_prompt]), text.encode([options.sample_negative])
