"""Generate pictures from a model handle, with or without a LoRA."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .device_memory import explain_out_of_memory
from .errors import AtelierError
from .fields import check_text
from .files import atomic_file
from .lora.file import load_lora
from .lora.merge import merge_into
from .lora.names import of_other_network
from .lora.weights import select
from .models.families import family_of
from .models.handle import DiffusersModel
from .models.load import load_text, load_unet, load_vae
from .models.text import TextBatch
from .progress import Progress
from .sampling import SamplingOptions, all_hidden, decode, sample

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class GenerateRequest:
    """What to generate: one picture for each (prompt, seed) pair.

    Raises:
        AtelierError: the lists differ in length, or a value is out of range.
    """

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    negative: str = ""
    options: SamplingOptions = field(default_factory=SamplingOptions)
    lora: Path | None = None
    strength: float = 1.0
    """Strength of the LoRA; 0 gives the same picture as no LoRA, bit for bit."""
    batch_size: int = 1

    def __post_init__(self) -> None:
        if not self.prompts or len(self.prompts) != len(self.seeds):
            raise AtelierError(f"There are {len(self.prompts)} prompts and {len(self.seeds)} seeds.",
                               "Give one seed for each prompt, and at least one of both.")
        if self.batch_size < 1:
            raise AtelierError(f"batch_size is {self.batch_size}.", "Choose at least 1.")
        for text in {*self.prompts, self.negative}:
            check_text("The prompt" if text in self.prompts else "The negative prompt", text)
        for seed in self.seeds:
            if not -2**63 <= seed < 2**64:  # what torch's generators take
                raise AtelierError(f"seed is {seed}.", "Choose a whole number from 0 to 2^64 - 1.")
        if not math.isfinite(self.strength):
            raise AtelierError(f"strength is {self.strength}.", "Choose a finite number; 1 is usual.")


@dataclass(frozen=True)
class Picture:
    """A generated picture and how it was made."""

    image: Image
    prompt: str
    seed: int
    settings: Mapping[str, Any]

    def save(self, path: Path) -> Path:
        """Write a PNG with prompt, seed and settings in its text chunk `atelier`; whole or not at all."""
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_itxt("atelier", json.dumps({"prompt": self.prompt, "seed": self.seed, **self.settings}))
        with atomic_file(path) as part:
            self.image.save(part, "PNG", pnginfo=info)
        return path


@explain_out_of_memory("drawing", "Choose smaller pictures, or precision bf16 or fp16.")
@torch.no_grad()
def generate(model: DiffusersModel, request: GenerateRequest, *, device: torch.device, dtype: torch.dtype,
             progress: Progress) -> list[Picture]:
    """Generate the pictures of `request`, loading one component at a time.

    Args:
        model: The model to draw with.
        request: Prompts, seeds, size, LoRA.
        device: Where to compute.
        dtype: Arithmetic type of UNet and text encoder; the VAE decodes in float32 where this is float16.
        progress: Receives steps; may interrupt between them.

    Raises:
        AtelierError: the LoRA does not fit the model, or memory ran out.
    """
    adapters = load_lora(request.lora) if request.lora else {}
    if foreign := next(filter(of_other_network, adapters), ""):
        raise AtelierError(f"{request.lora} is a LoRA of a network that is not Stable Diffusion's (first layer: "
                           f"{foreign}).", "Choose a LoRA that was trained on a model of this family.")
    text = load_text(model, dtype=dtype, device=device)
    for name, encoder in text.encoders.items():
        merge_into(encoder, select(adapters, name), request.strength)
    positive, negative = text.encode(request.prompts), text.encode([request.negative] * len(request.prompts))
    del text
    exact = torch.float32 if dtype == torch.float16 else dtype
    hidden = None
    if family_of(model.family).inpaints:
        hidden = all_hidden(load_vae(model, dtype=exact, device=device), request.options)
    unet = load_unet(model, dtype=dtype, device=device)
    merge_into(unet, select(adapters, "unet"), request.strength)
    config = model.noise_schedule.as_config()
    starts = range(0, len(request.prompts), request.batch_size)
    latents = []
    steps = request.options.steps
    progress.phase("generating", len(starts) * steps)
    for number, start in enumerate(starts):
        rows = slice(start, start + request.batch_size)
        latents.append(sample(unet, config, _rows(positive, rows), _rows(negative, rows), request.seeds[rows],
                              request.options, progress,
                              lambda done, before=number * steps: progress.advance(before + done), hidden))
    del unet
    vae = load_vae(model, dtype=exact, device=device)
    images = decode(vae, torch.cat(latents))
    settings = {"model": model.path.name, "model_fingerprint": model.fingerprint, "negative": request.negative,
                **asdict(request.options), "lora": request.lora.name if request.lora else None,
                "strength": request.strength if request.lora else None}
    return [Picture(image, prompt, seed, settings)
            for image, prompt, seed in zip(images, request.prompts, request.seeds, strict=True)]


def _rows(batch: TextBatch, rows: slice) -> TextBatch:
    return TextBatch(batch.embeds[rows], None if batch.pooled is None else batch.pooled[rows])
