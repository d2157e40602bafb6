"""Sample pictures drawn while training, always of the same prompts and seeds, so that they can be compared."""

from __future__ import annotations

import logging
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ..device_memory import OutOfMemory, free_cache, unify_memory_errors
from ..files import atomic_file
from ..models.text import TextBatch, TextStack
from ..pictures.side_by_side import side_by_side
from ..progress import Progress
from ..sampling import SamplingOptions, all_hidden, decode, sample
from .processes import Processes
from .request.outputs import SampleConfig
from .run_folder import RoundScore, RunFolder
from .sample_scores import SampleScorer, mean_score
from .trainer import Trainer
from .unet_denoiser import UNetDenoiser
from .unet_memory_plan import free_memory
from .vae_tiles import decode_in_tiles

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from PIL.Image import Image

log = logging.getLogger("atelier")


@dataclass(frozen=True)
class SamplePicture:
    """One sample picture."""

    size: tuple[int, int]
    """Of the latents: height, width."""
    prompt: int
    """Index among the prompts."""
    seed: int


class Paint(Protocol):
    """A model's way to draw sample pictures."""

    def __call__(self, wanted: SamplePicture, progress: Progress, on_step: Callable[[int], None]) -> Image:
        """Draw with the weights as they are.

        Args:
            wanted: What to draw.
            progress: Asked before each denoising step.
            on_step: Told of each denoising step, from 1 to `sample_steps`.
        """
        ...


class SampleDrawer:
    """Draws a round of pictures (each prompt with each seed) with the current or with given weights, keeps them in the
    run's folder and has them scored. Where several processes train together, each draws and scores a part of the
    round, and the first keeps all.

    Args:
        trainer: Its weights are used.
        paint: The model's way to draw.
        folder: Where pictures and scores go.
        progress: Shown the pictures.
        scorer: Scores a round; None where none is wanted.
    """

    def __init__(self, trainer: Trainer, paint: Paint, folder: RunFolder, progress: Progress,
                 scorer: SampleScorer | None = None) -> None:
        self.trainer, self.paint, self.folder, self.progress = trainer, paint, folder, progress
        self.scorer = scorer

    def draw_control(self) -> None:
        """Draw and score the base model's pictures as step 0, unless they are there; the trainer must be untrained."""
        if self.scorer and self.trainer.processes.from_first(
                lambda: 0 not in self.folder.drawn or 0 not in self.folder.scores):
            self._round(0, None)

    def __call__(self, step: int, weights: list[Tensor] | None = None) -> RoundScore | None:
        """Draw the pictures of optimiser step `step`, with the trainer's current weights if none are given.

        Returns:
            Their scores, in each process; None without a scorer, and for weights of another step.

        Raises:
            OutOfMemory: in one of the processes, and so in all.
        """
        pictures, score = self._round(step, weights)
        self.progress.preview(side_by_side(pictures))
        if score is not None:
            self.progress.measure({"step": step, **asdict(score)})
        return score

    def _round(self, step: int, weights: list[Tensor] | None) -> tuple[list[Image], RoundScore | None]:
        processes, item = self.trainer.processes, self.trainer.sampler.items[0]
        config = self.trainer.request.samples
        whole = [SamplePicture((item.height, item.width), prompt, seed) for prompt in range(len(config.prompts))
                 for seed in config.seeds(self.trainer.request.seed)]
        own: tuple[list[Image], list[RoundScore]] | None = None
        with processes.together():
            try:
                with unify_memory_errors():
                    own = self._part(whole[processes.rank::processes.count], weights)
            except OutOfMemory as error:
                log.info("%s", error)
        if processes.any(own is None):  # out of the handler, which holds what was computed
            raise OutOfMemory("No memory was left for sample pictures.")
        pictures, scores = _in_order(*own, processes) if own else ([], [])
        score = mean_score(scores) if scores else None
        if processes.first:
            for number, picture in enumerate(pictures):
                with atomic_file(self.folder.sample(step, number)) as part:
                    picture.save(part, "PNG")
            if self.scorer:
                self.folder.write_score(step, score)
        return pictures, score

    @torch.no_grad()
    def _part(self, wanted: list[SamplePicture], weights: list[Tensor] | None
              ) -> tuple[list[Image], list[RoundScore]]:
        """Draw pictures, and score those of the current weights."""
        trainer, adapters = self.trainer, self.trainer.adapters
        config = trainer.request.samples
        self.progress.phase("sampling", config.sample_steps * len(wanted))
        adapters.train(False)
        with adapters.replaced(trainer.current if weights is None else weights):
            pictures = [self.paint(each, self.progress, self._counted(number * config.sample_steps))
                        for number, each in enumerate(wanted)]
        if self.scorer is None or weights is not None:
            return pictures, []
        return pictures, self.scorer(pictures, [config.prompts[each.prompt] for each in wanted], self.progress)

    def _counted(self, before: int) -> Callable[[int], None]:
        return lambda done: self.progress.advance(before + done)


def _in_order(pictures: list[Image], scores: list[RoundScore], processes: Processes
              ) -> tuple[list[Image], list[RoundScore]]:
    """The pictures and scores of all processes, which took turns."""
    if processes.count == 1:
        return pictures, scores
    parts = processes.exchange([[_packed(picture) for picture in pictures], [asdict(score) for score in scores]])

    def turns(kind: int) -> list[Any]:
        return [each for turn in zip_longest(*(part[kind] for part in parts)) for each in turn if each is not None]

    return [_unpacked(text) for text in turns(0)], [RoundScore(**values) for values in turns(1)]


def _packed(picture: Image) -> str:
    data = BytesIO()
    picture.save(data, "PNG")
    return b64encode(data.getvalue()).decode()


def _unpacked(text: str) -> Image:
    from PIL import Image

    return Image.open(BytesIO(b64decode(text)))


@dataclass(frozen=True)
class UNetPainter:
    """Draws the sample pictures of Stable Diffusion: a `Paint`."""

    denoiser: UNetDenoiser
    config: SampleConfig
    cached: tuple[list[TextBatch], TextBatch] | None
    """Conditioning of (each sample prompt, negative), or None when the text encoder is trained."""
    load_vae: Callable[[], AutoencoderKL]
    """The VAE is loaded for each picture and let go, so that training does not carry it along."""
    inpaints: bool = False
    """Whether the UNet is an inpainting model's; it fills in whole pictures."""

    def __call__(self, wanted: SamplePicture, progress: Progress, on_step: Callable[[int], None]) -> Image:
        """The picture."""
        config, denoiser = self.config, self.denoiser
        # Small pictures can be trained on, but none below 64 pixels are drawn.
        height, width = (max(64, side * 8) for side in wanted.size)
        options = SamplingOptions(width, height, config.sample_steps, config.sample_cfg)
        positives, negative = self.cached or encode_prompts(denoiser.text, config)
        hidden = all_hidden(self.load_vae(), options) if self.inpaints else None
        latents = sample(denoiser.unet, denoiser.scheduler_config, positives[wanted.prompt], negative, [wanted.seed],
                         options, progress, on_step, hidden)
        vae = self.load_vae()
        device = denoiser.device
        free_cache(device, collect=False)  # what is cached for the trainer is no room for the VAE
        decode_in_tiles(vae, latents, free_memory(device))
        return decode(vae, latents)[0]


def encode_prompts(text: TextStack | None, config: SampleConfig) -> tuple[list[TextBatch], TextBatch]:
    """Conditioning of each sample prompt, and of their negative."""
    assert text is not None
    return [text.encode([prompt]) for prompt in config.prompts], text.encode([config.sample_negative])
