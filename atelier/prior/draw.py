"""Draw the prior pictures that are not there yet, and add all of them to a training set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from ..dataset.sample import make_sample
from ..dataset.types import Sample, TrainingSet
from ..device_memory import explain_out_of_memory, free_cache
from ..files import atomic_file
from ..models.families import family_of
from ..models.handle import DiffusersModel
from ..models.load import load_text, load_unet, load_vae
from ..pictures.decode import UnreadablePicture
from ..progress import Progress
from ..sampling import SamplingOptions, all_hidden, decode, sample
from ..train.processes import ALONE, Processes
from .options import PriorOptions, PriorPicture, prior_pictures

if TYPE_CHECKING:
    from PIL.Image import Image

_DECODED_TOGETHER = 8
"""Pictures drawn before the UNet makes room for the VAE; an interrupt loses no more."""


class Drawer(Protocol):
    """A model that draws prior pictures."""

    @property
    def identity(self) -> Mapping[str, object]:
        """What decides its pictures beside prompt, seed, size and options, as JSON values."""
        ...

    def draw(self, wanted: Sequence[PriorPicture], options: PriorOptions, progress: Progress
             ) -> Generator[Image, None, None]:
        """The pictures of `wanted`, in order, each as soon as it is there."""
        ...


def add_prior_pictures(data: TrainingSet, options: PriorOptions, drawer: Drawer, folder: Path, progress: Progress,
                       processes: Processes = ALONE,
                       exclusive: Callable[[], AbstractContextManager[None]] = nullcontext) -> TrainingSet:
    """`data` and the prior pictures of `options`, drawn where `folder` lacks them.

    A file is named by all that decides its picture, so what was drawn before an interruption, or for another training
    with the same model, is not drawn again.

    Args:
        data: The pictures that are learnt; prior pictures that it holds are kept.
        options: Which pictures, and how they are drawn.
        drawer: The model.
        folder: Of the files; made where it is missing.
        progress: Shown progress and pictures, asked before each step.
        processes: The first draws; the others get its files.
        exclusive: Entered while pictures are drawn; not where all are there.

    Raises:
        AtelierError: there is nothing to draw (see `prior_pictures`), or memory or disk ran out.
        Interrupted: (or what else `progress` raises) the pictures drawn so far stay.
    """
    wanted = prior_pictures(data, options)
    files = [folder / f"{_name(picture, options, drawer.identity)}.png" for picture in wanted]
    there: dict[Path, Sample] = {}
    processes.from_first(lambda: there.update(_draw_missing(wanted, files, options, drawer, progress, exclusive)))
    if processes.count > 1:
        _share(files, processes)
    drawn = tuple(there.get(file) or _sample(file, picture) for file, picture in zip(files, wanted, strict=True))
    return replace(data, samples=(*data.samples, *drawn))


@dataclass(frozen=True)
class DiffusersDrawer:
    """Stable Diffusion on disk: a `Drawer`."""

    model: DiffusersModel
    device: torch.device
    dtype: torch.dtype
    """Of UNet and text encoder; the VAE decodes in float32 where this is float16."""

    @property
    def identity(self) -> Mapping[str, object]:
        """The weights and the noise process, and what numbers they are computed with."""
        return {"weights": self.model.fingerprint, "noise": dict(self.model.noise_schedule.as_config()),
                "device": self.device.type, "dtype": str(self.dtype)}

    @torch.no_grad()
    def draw(self, wanted: Sequence[PriorPicture], options: PriorOptions, progress: Progress
             ) -> Generator[Image, None, None]:
        """See `Drawer.draw`. UNet and VAE take turns on the device."""
        text = load_text(self.model, dtype=self.dtype, device=self.device)
        prompts = {picture.prompt: text.encode([picture.prompt]) for picture in wanted}
        negative = text.encode([options.negative])
        del text
        vae = load_vae(self.model, dtype=torch.float32 if self.dtype == torch.float16 else self.dtype,
                       device=torch.device("cpu"))
        how = {size: SamplingOptions(*size, options.steps, options.cfg) for size in {each.size for each in wanted}}
        inpaints = family_of(self.model.family).inpaints
        hidden = {size: all_hidden(vae, options) for size, options in how.items()} if inpaints else {}
        unet = load_unet(self.model, dtype=self.dtype, device=self.device)
        config = self.model.noise_schedule.as_config()
        for start in range(0, len(wanted), _DECODED_TOGETHER):
            latents = [sample(unet, config, prompts[picture.prompt], negative, [picture.seed], how[picture.size],
                              progress, further=hidden.get(picture.size))
                       for picture in wanted[start:start + _DECODED_TOGETHER]]
            torch.nn.Module.to(unet, "cpu")
            free_cache(self.device)
            torch.nn.Module.to(vae, self.device)
            for latent in latents:
                yield decode(vae, latent)[0]
            if start + _DECODED_TOGETHER < len(wanted):
                torch.nn.Module.to(vae, "cpu")
                torch.nn.Module.to(unet, self.device)


def _draw_missing(wanted: Sequence[PriorPicture], files: Sequence[Path], options: PriorOptions, drawer: Drawer,
                  progress: Progress, exclusive: Callable[[], AbstractContextManager[None]]) -> dict[Path, Sample]:
    """Draw what is not there; returns the samples of what was."""
    there: dict[Path, Sample] = {}
    for picture, file in zip(wanted, files, strict=True):
        with suppress(UnreadablePicture):  # not there, or damaged by something else: it is drawn
            there[file] = _sample(file, picture)
    missing = [(picture, file) for picture, file in zip(wanted, files, strict=True) if file not in there]
    if not missing:
        return there
    progress.phase("drawing prior pictures", len(missing))
    with (exclusive(), explain_out_of_memory("drawing prior pictures", "Choose a smaller resolution."),
          closing(drawer.draw([picture for picture, _ in missing], options, progress)) as images):
        for done, (image, (_, file)) in enumerate(zip(images, missing, strict=True), 1):
            with atomic_file(file) as part:
                image.save(part, "PNG")
            progress.advance(done)
            progress.preview(image)
            progress.check()
    return there


def _share(files: Sequence[Path], processes: Processes) -> None:
    """Give each machine the pictures of the first process: another card would draw others."""
    for file in files:
        content = processes.file_of_first(file.read_bytes)
        if not file.exists() or file.read_bytes() != content:
            with atomic_file(file) as part:
                part.write_bytes(content)


def _name(picture: PriorPicture, options: PriorOptions, identity: Mapping[str, object]) -> str:
    decides = [picture.prompt, options.negative if options.cfg != 1 else "", picture.seed, picture.size, options.steps,
               options.cfg, identity]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def _sample(file: Path, picture: PriorPicture) -> Sample:
    return replace(make_sample(file, (picture.prompt,), prior=True), resolution=picture.resolution)
