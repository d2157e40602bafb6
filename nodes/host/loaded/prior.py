"""Prior pictures drawn with a model that the host has loaded, by the host's own sampler."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sample
import torch
from PIL import Image

from ....atelier.prior.options import PriorOptions, PriorPicture
from ....atelier.progress import Progress
from .model import HostModel
from .pictures import scheduler_of, to_picture

_CELL = 8
"""Pixels of a latent's side in core's own empty latents, which it then fits to the model."""


@dataclass(frozen=True)
class HostDrawer:
    """A `Drawer` (see `atelier.prior.draw`)."""

    loaded: HostModel

    @property
    def identity(self) -> Mapping[str, object]:
        """The fingerprints of network, text encoder and VAE."""
        return {name: value for name, value in self.loaded.identity().items() if name != "guidance"}

    def draw(self, wanted: Sequence[PriorPicture], options: PriorOptions, progress: Progress
             ) -> Generator[Image.Image, None, None]:
        """See `Drawer.draw`: as core's KSampler draws, with Euler steps."""
        positives = {picture.prompt: self._encode(picture.prompt) for picture in wanted}
        negative = self._encode(options.negative)
        for picture in wanted:
            with torch.inference_mode():
                drawn = self._draw(picture, options, positives[picture.prompt], negative, progress)
            yield drawn

    @torch.inference_mode()
    def _encode(self, prompt: str) -> Any:
        return self.loaded.clip.encode_from_tokens_scheduled(self.loaded.clip.tokenize(prompt))

    def _draw(self, picture: PriorPicture, options: PriorOptions, positive: Any, negative: Any, progress: Progress
              ) -> Image.Image:
        model, (width, height) = self.loaded.model, picture.size
        empty = comfy.sample.fix_empty_latent_channels(
            model, torch.zeros(1, 4, height // _CELL, width // _CELL), _CELL)
        noise = comfy.sample.prepare_noise(empty, picture.seed)
        latents = comfy.sample.sample(
            model, noise, options.steps, options.cfg, "euler", scheduler_of(model.model), positive, negative, empty,
            callback=lambda *_: progress.check(), disable_pbar=True, seed=picture.seed)
        return to_picture(self.loaded.vae.decode(latents))
