"""A whole run: encode, load, train, write. The one entry to training."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from ..dataset.cache import EncodedSet
from ..dataset.types import TrainingSet
from ..device_memory import explain_out_of_memory, free_cache
from ..errors import AtelierError
from ..files import atomic_file
from ..models.families import family_of
from ..models.handle import DiffusersModel
from ..models.load import load_scheduler_config, load_text, load_tokenizers, load_unet, load_vae
from ..models.text import TextBatch
from ..progress import Progress
from .config import TrainConfig
from .devices import RunPaths, pick_device, pick_dtype
from .loop import Loop
from .memory import needs_checkpointing
from .metadata import lora_metadata
from .plot import loss_plot
from .preparation import check_masks, cut_captions, encode_in_room
from .report import RunResult, TrainReport
from .run_folder import LoraOutput, RunFolder
from .samples import SampleDrawer, encode_prompts
from .trainer import Parts, Trainer

log = logging.getLogger("atelier")

_FORMAT = "3"
"""Part of a run's digest; grows when training the same request would give other weights."""


@dataclass(frozen=True)
class _Job:
    name: str
    model: DiffusersModel
    data: TrainingSet
    config: TrainConfig
    place: RunPaths
    progress: Progress
    device: torch.device
    dtype: torch.dtype

    @property
    def run(self) -> str:
        return self.config.digest(_FORMAT, self.model.fingerprint, self.model.prediction_type, self.data.digest,
                                  str(self.dtype))

    @property
    def store(self) -> RunFolder:
        return RunFolder(self.place.runs / self.run)

    @property
    def shelf(self) -> LoraOutput:
        return LoraOutput(self.place.loras, self.name, self.run, self.config.options.form)


def train(name: str, model: DiffusersModel, data: TrainingSet, config: TrainConfig, place: RunPaths,
          progress: Progress) -> TrainReport:
    """Train a LoRA on `data` and write it to `place.loras`.

    The same request finds its finished run and returns that; an interrupted one goes on where it stopped, bit for bit
    on the CPU.

    Args:
        name: Of the LoRA file, without ending; a subfolder is allowed. A file of another run is never overwritten:
            the new one gets a number.
        model: What to fine-tune.
        data: Pictures and captions.
        config: What to do.
        place: Folders and device.
        progress: Shown phases, progress, losses and samples; may interrupt or ask to stop.

    Raises:
        AtelierError: the model cannot be trained, memory or disk ran out, or the loss became NaN.
        Interrupted: (or what else the progress raises) state and partial LoRA are saved; run again to go on.
    """
    device = pick_device(place.device)
    job = _Job(name, model, data, config, place, progress, device, pick_dtype(config.options.precision, device))
    outcome = _finished(job.store)
    if outcome is not None:
        return TrainReport(name, job.shelf.publish(job.store.folder / outcome.weights), job.store, outcome, reused=True)
    outcome = _train(job)
    lora = job.shelf.publish(job.store.folder / outcome.weights)
    job.store.write_report(outcome.as_dict())
    job.store.state.unlink(missing_ok=True)
    job.shelf.drop_partial()
    return TrainReport(name, lora, job.store, outcome, reused=False)


def _finished(store: RunFolder) -> RunResult | None:
    """How the run ended, if it did and its result is still there."""
    values = store.read_report()
    outcome = None if values is None else RunResult.from_dict(values)
    if outcome is not None and (store.folder / outcome.weights).is_file():
        return outcome
    if values is not None:
        log.warning("The finished run in %s lacks its report or its LoRA; it is trained again.", store.folder)
        # Or else the first file that the new training leaves there would count as its result.
        store.report.unlink()
    return None


def _check_trainable(model: DiffusersModel) -> None:
    family = family_of(model.family)
    if family.in_channels != 4:
        raise AtelierError(f"{model.path.name} takes {family.in_channels} latent channels: an inpainting or upscaling "
                           "model.", "Train on the ordinary version of the model.")
    if family.key == "sdxl-refiner":
        raise AtelierError(f"{model.path.name} is a refiner, which only finishes what a base model began.",
                           "Train on the base model.")


def _train(job: _Job) -> RunResult:
    _check_trainable(job.model)
    cut = cut_captions(job.data, load_tokenizers(job.model))
    if cut:
        log.warning(cut)
    encoded = encode_in_room(job.data, job.model, job.config.options, job.place, device=job.device, dtype=job.dtype,
                             progress=job.progress)
    with explain_out_of_memory("loading the model", "Close other programs that use the device, or choose precision "
                               "bf16 or fp16. What was learnt before is kept."):
        prompts = _sample_conditions(job)
        job.progress.phase("loading", 1)
        trainer, checkpointing = _make_trainer(job, encoded)
    check_masks(trainer.order.items, encoded)
    draw = None
    if job.config.options.sample_prompt:
        draw = SampleDrawer(trainer, job.config.options, prompts,
                            partial(load_vae, job.model, dtype=_vae_dtype(job), device=job.device), job.store,
                            job.progress)
    metadata = partial(lora_metadata, job.name, job.run, job.model, job.data, job.config)
    loop = Loop(trainer, job.store, job.progress, metadata=metadata, draw=draw)
    began = time.monotonic()
    with _partial_kept(job):
        status = loop.run()
    seconds = time.monotonic() - began
    outcome = RunResult(
        status, (job.store.best if trainer.best else job.store.last).name, trainer.step, trainer.total,
        trainer.steps_per_epoch, trainer.early_stopping.best_step,
        trainer.early_stopping.best if trainer.early_stopping.best_step else None,
        seconds, seconds / max(1, trainer.step - loop.began_step), len(trainer.order.items),
        len(trainer.validation.uses) if trainer.validation.held_out else 0,
        str(job.dtype).removeprefix("torch."), checkpointing, trainer.history,
        [sentence for sentence in (cut, _undrawn(loop.undrawn)) if sentence])
    plot = loss_plot(trainer.history, title=f"{job.name} · {status}", best_step=outcome.best_step,
                     steps_per_epoch=trainer.steps_per_epoch)
    with atomic_file(job.store.plot) as part:
        plot.save(part, "PNG")
    del trainer, loop, draw
    free_cache(job.device)
    return outcome


def _undrawn(steps: list[int]) -> str:
    if not steps:
        return ""
    return (f"No memory was left for the sample pictures of the steps {', '.join(map(str, steps))}: choose a smaller "
            "resolution, or train without a sample prompt.")


def _make_trainer(job: _Job, encoded: EncodedSet) -> tuple[Trainer, bool]:
    unet = load_unet(job.model, dtype=job.dtype, device=job.device)
    text = load_text(job.model, dtype=job.dtype, device=job.device) if job.config.lora.train_text_encoder else None
    checkpointing = needs_checkpointing(unet, encoded, job.config, job.device)
    if checkpointing:
        unet.enable_gradient_checkpointing()
    parts = Parts(unet, load_scheduler_config(job.model), text, job.device, job.dtype)
    return Trainer(parts, encoded, job.config), checkpointing


def _sample_conditions(job: _Job) -> tuple[TextBatch, TextBatch] | None:
    """Encode the sample prompt before the UNet needs the memory; not when the text encoder itself changes."""
    if not job.config.options.sample_prompt or job.config.lora.train_text_encoder:
        return None
    text = load_text(job.model, dtype=_vae_dtype(job), device=job.device)
    with torch.no_grad():
        conditions = encode_prompts(text, job.config.options)
    del text
    free_cache(job.device)
    return conditions


def _vae_dtype(job: _Job) -> torch.dtype:
    # float16 overflows in SDXL's VAE; float32 costs little for one picture.
    return torch.float32 if job.dtype == torch.float16 else job.dtype


@contextmanager
def _partial_kept(job: _Job) -> Iterator[None]:
    """Should the run end before its time, leave what was learnt among the LoRA files."""
    try:
        yield
    except BaseException:  # the host's interrupt is not an Exception; it goes on up
        if job.store.last.exists():
            log.info("What was learnt so far is in %s; run again to go on.", job.shelf.keep_partial(job.store.last))
        raise
    finally:
        free_cache(job.device)
