"""A whole run: encode, load, train, write. The one entry to training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..dataset.advice import advice
from ..dataset.types import TrainingSet
from ..device_memory import explain_out_of_memory, free_cache
from ..files import atomic_file
from ..models.handle import DiffusersModel
from ..progress import Progress
from ..score.digest import model_digest
from .devices import RunPaths, pick_device, pick_dtype
from .diffusers_trainable import DiffusersTrainable
from .extension import extend_shorter_run
from .fitting_batch import with_fitting_batch
from .identity import RunIdentity, run_identity
from .joint_run import begun_with, check_alike, with_batches_of
from .loop import Loop
from .metadata import lora_metadata
from .plot import loss_plot
from .preparation import check_masks
from .preservation import check_preservation
from .processes import ALONE, Processes
from .random_state import random_state_kept
from .report import RunResult, TrainReport
from .request.request import TrainRequest
from .run_folder import LoraOutput, RunFolder
from .sample_scores import SampleScorer, check_monitor
from .sample_settings import settings_digest
from .samples import SampleDrawer
from .trainable import TrainableModel
from .trainer import Trainer

log = logging.getLogger("atelier")


@dataclass(frozen=True, kw_only=True)
class _Job:
    name: str
    model: TrainableModel
    data: TrainingSet
    request: TrainRequest
    paths: RunPaths
    progress: Progress
    device: torch.device
    dtype: torch.dtype
    asked: TrainRequest
    """What each process was asked for; `request` has the batches of all."""
    fitted: bool
    """Whether the batch size was chosen by the card's memory."""
    processes: Processes

    @property
    def identity(self) -> RunIdentity:
        return run_identity(self.request, self.model, self.data, self.dtype, score_model=self.score_model)

    @property
    def folder(self) -> RunFolder:
        samples = self.request.samples
        return RunFolder(self.paths.runs / str(self.identity), settings_digest(samples, self.score_model),
                         max(1, len(samples.prompts) * len(samples.seeds(self.request.seed))))

    @property
    def score_model(self) -> str:
        """Digest of the model that scores sample pictures; empty where none does."""
        return model_digest(Path(self.request.samples.score_model)) if self.request.samples.scored else ""

    @property
    def lora(self) -> LoraOutput:
        output = self.request.output
        return LoraOutput(self.paths.loras, self.name, str(self.identity), output.lora_format, output.save_dtype)


def train(name: str, model: DiffusersModel | TrainableModel, data: TrainingSet, request: TrainRequest, paths: RunPaths,
          progress: Progress, *, continue_stopped: bool = True, processes: Processes = ALONE,
          exclusive: Callable[[], AbstractContextManager[None]] = nullcontext) -> TrainReport:
    """Train a LoRA on `data` and write it to `paths.loras`.

    A run is known by what decides its weights (see `atelier.train.identity`). The same request finds its finished run
    and returns that; an interrupted run resumes where it stopped, bit for bit on the CPU; a longer request resumes
    from a shorter run where the learning rate does not depend on the length. LoRAs of steps that it was asked to save
    are written beside the finished one.

    Args:
        name: Of the LoRA file, without ending; a subfolder is allowed. A file of another run is never overwritten:
            the new one gets a number.
        model: The model to fine-tune: one on disk, or another that brings what a run needs.
        data: Pictures and captions.
        request: What to do.
        paths: Folders and device.
        progress: Shown phases, progress, losses and samples, also those of a finished run; may interrupt or ask to
            stop.
        continue_stopped: Whether a run that the user stopped (and kept) goes on; otherwise its result is returned.
        processes: Train this together, each with the same arguments but for device and progress: N of them what one
            would with N times the batch size. Files are read and written by the first, but for pictures, model and
            cache. All return the same.
        exclusive: Entered while the device is computed on; not for a finished run, which needs none.

    Raises:
        AtelierError: the model cannot be trained, memory or disk ran out, or the loss became NaN.
        Interrupted: (or what else `progress` raises) state and partial LoRA are saved; run again to go on.
    """
    device = pick_device(paths.device)
    trainable = DiffusersTrainable(model, processes) if isinstance(model, DiffusersModel) else model
    dtype = pick_dtype(request.device.precision, device)
    fitted = not request.optimizer.batch_size
    request = with_fitting_batch(
        request, partial(trainable.fitting_batch, data, request, device=device, dtype=dtype), processes)
    job = _job(_Job(name=name, model=trainable, data=data, request=request, paths=paths, progress=progress,
                    device=device, dtype=dtype, asked=request, fitted=fitted, processes=processes))
    check_alike(processes, job.identity)
    folder = job.folder
    found = processes.from_first(lambda: _values(_finished(folder, continue_stopped)))
    finished = RunResult.from_dict(found) if found else None
    if finished is None:
        with exclusive():
            result = _train(job)
    elif processes.from_first(lambda: finished.samples == folder.sample_settings or not folder.sample_settings
                              or not folder.state.exists()):
        result = finished
        result.show(progress, folder)
    else:  # other sample pictures are wanted: its state, from which no step is left, draws the last one
        with exclusive():
            result = replace(finished, samples=_train(job).samples)

    def publish() -> list[Any]:
        every = request.output.save_every
        saved = [[step, str(replace(job.lora, name=f"{name}-{step:06d}").publish(path))]
                 for step, path in folder.saved.items() if every and step % every == 0]
        lora = job.lora.publish(folder.path / result.weights)
        if result is not finished:
            folder.write_report(result.as_dict())
            job.lora.drop_partial()
        return [str(lora), saved]

    lora, saved = processes.from_first(publish)
    return TrainReport(name=name, lora=Path(lora), folder=folder, result=result, reused=finished is not None,
                       saved={step: Path(path) for step, path in saved})


def _job(job: _Job) -> _Job:
    """The job with the batches of the processes that began it."""
    processes = job.processes
    began = processes.from_first(lambda: begun_with(
        job.asked, processes, job.paths.runs, lambda request: replace(job, request=request).identity))
    if began == 1:
        return job
    if began != processes.count:
        log.info("Training goes on in the batches of the %d processes that began it, %d pictures each.", began,
                 began * job.asked.optimizer.batch_size)
    return replace(job, request=with_batches_of(job.asked, began))


def _batch(job: _Job) -> str:
    return f"Batch size {job.asked.optimizer.batch_size}: as many pictures as fit." if job.fitted else ""


def _values(result: RunResult | None) -> dict[str, Any] | None:
    return None if result is None else result.as_dict()


def _finished(folder: RunFolder, continue_stopped: bool) -> RunResult | None:
    """The result of a finished run whose files are still there; of one that the user stopped, unless it is to go on."""
    finished = _complete(folder)
    if finished is not None and finished.stopped and continue_stopped and folder.state.exists():
        folder.report.unlink()  # should it be interrupted, the run is an unfinished one
        return None
    return finished


def _complete(folder: RunFolder) -> RunResult | None:
    values = folder.read_report()
    result = None if values is None else RunResult.from_dict(values)
    if result is not None and (folder.path / result.weights).is_file():
        return result
    if values is not None:
        log.warning("The finished run in %s lacks its report or its LoRA; it is trained again.", folder.path)
        # Or else the first file that the new training leaves there would count as its result.
        folder.report.unlink()
        folder.state.unlink(missing_ok=True)
    return None


def _train(job: _Job) -> RunResult:
    check_monitor(job.request)
    check_preservation(job.request, job.data)
    processes = job.processes
    job.model.check()
    cut = job.model.cut_captions(job.data)
    if cut:
        log.warning(cut)
    encoded = job.model.encode(job.data, job.request, job.paths, device=job.device, dtype=job.dtype,
                               progress=job.progress)
    with processes.together(), explain_out_of_memory(
            "loading the model", "Close other programs that use the device, or choose precision bf16 or fp16. What was "
            "learnt before is kept."):
        job.progress.phase("loading", 1)
        loaded = job.model.load(encoded, job.asked, device=job.device, dtype=job.dtype)
        trainer = Trainer(loaded.denoiser, encoded, job.request, processes,
                          at_once=job.asked.optimizer.batch_size, progress=job.progress)
    check_masks(trainer.sampler.items, encoded)
    notes = trainer.notes
    for note in notes:
        log.warning(note)
    extended = processes.from_first(
        partial(extend_shorter_run, job.paths.runs, job.identity, trainer.total, job.request.optimizer))
    if extended:
        log.info(extended)
    draw, samples = None, job.request.samples
    if loaded.paint:
        scorer = SampleScorer(Path(samples.score_model), job.data) if samples.scored else None
        draw = SampleDrawer(trainer, loaded.paint, job.folder, job.progress, scorer)
    metadata = partial(lora_metadata, job.name, job.identity, job.model, job.data, job.request)
    loop = Loop(trainer, job.folder, job.progress, metadata=metadata, save_memory=loaded.save_memory, draw=draw)
    began = time.monotonic()
    with _partial_kept(job):
        with random_state_kept(), explain_out_of_memory(
                "drawing the base model's sample pictures",
                "Choose a smaller resolution, or score no samples (score_model none)."):
            if draw:
                draw.draw_control()
        ended = loop.run()
    seconds = time.monotonic() - began
    stopping, step = ended.state.early_stopping, ended.state.step
    held_out = [job.data.samples[use.index].image.name for use in trainer.validation.uses
                if trainer.validation.held_out]
    result = RunResult(
        status=ended.status, weights=ended.weights.name, step=step, total=trainer.total,
        steps_per_epoch=trainer.steps_per_epoch, best_step=stopping.best_step,
        best_loss=stopping.best if stopping.best_step else None, monitor=job.request.validation.monitor,
        seconds=seconds,
        seconds_per_step=seconds / max(1, step - ended.began_step), pictures=len(trainer.sampler.items),
        held_out_names=held_out,
        precision=str(job.dtype).removeprefix("torch."),
        gradient_checkpointing=loaded.checkpointing or loop.memory_saved,
        samples=job.folder.sample_settings, history=ended.state.history,
        warnings=[sentence for sentence in (*advice(job.data), cut, _batch(job), *loaded.notes, *notes, extended,
                                            *trainer.captured.notes, _undrawn(loop.undrawn)) if sentence])
    if processes.first:
        plot = loss_plot(result.history, title=f"{job.name} · {result.status}", scores=job.folder.scores,
                         best_step=result.best_step, steps_per_epoch=trainer.steps_per_epoch)
        with atomic_file(job.folder.plot) as part:
            plot.save(part, "PNG")
    del trainer, loaded, loop, draw
    free_cache(job.device)
    return result


def _undrawn(steps: list[int]) -> str:
    if not steps:
        return ""
    return (f"No memory was left for the sample pictures of the steps {', '.join(map(str, steps))}: choose a smaller "
            "resolution, or train without a sample prompt.")


@contextmanager
def _partial_kept(job: _Job) -> Iterator[None]:
    """Publish what was learnt so far beside the finished LoRA files if the run ends before its time."""
    try:
        yield
    except BaseException:  # the host's interrupt is not an Exception; it goes on up
        if job.processes.first and job.folder.last.exists():
            log.info("What was learnt so far is in %s; run again to go on.", job.lora.keep_partial(job.folder.last))
        free_cache(job.device)
        raise
