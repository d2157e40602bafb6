"""The only training loop: steps, validation, samples, and every way a run can end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..device_memory import OutOfMemory, free_cache, unify_memory_errors
from ..errors import AtelierError
from ..progress import Progress
from .checkpoint_writer import CheckpointWriter
from .due import Due
from .early_stopping import EarlyStopping
from .history import History
from .processes import OtherProcessFailed
from .random_state import random_state_kept
from .run_folder import RoundScore, RunFolder
from .run_state import RunState
from .step_rate import StepRate, format_rate
from .trainer import StepResult, Trainer

log = logging.getLogger("atelier")

READ_SECONDS = 0.25
"""On a device that works ahead of the host, losses are read (which waits for it) no more often than this."""


class Draw(Protocol):
    """Draws the sample pictures of an optimiser step, with the current weights if none are given."""

    def __call__(self, step: int, weights: list[Tensor] | None = None) -> RoundScore | None:
        """Draw now; returns the scores of current weights where there are any."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoopResult:
    """How the loop ended."""

    status: str
    """"complete", "stopped early" or "stopped by user"."""
    weights: Path
    """The run's LoRA file that is handed on."""
    state: RunState
    """Where the run is; its history and early stopping include a validation that only the end made due."""
    began_step: int
    """The step it resumed at; 0 for a run from the beginning."""


class Loop:
    """Drives a `Trainer` to its end.

    Args:
        trainer: Fresh; a state in `folder` is loaded into it.
        folder: The run's folder.
        progress: Shown progress, asked to stop.
        metadata: Builds the header of a LoRA file from the step of its weights.
        draw: Draws a sample picture, or None where none are wanted.
        save_memory: Switches gradient checkpointing on when a step does not fit; None where it is on, or forbidden.
        clock: Seconds, never going back.
    """

    def __init__(self, trainer: Trainer, folder: RunFolder, progress: Progress, *,
                 metadata: Callable[[int], Mapping[str, str]], draw: Draw | None = None,
                 save_memory: Callable[[], None] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.trainer, self.folder, self.progress = trainer, folder, progress
        self.draw, self._save_memory, self._clock = draw, save_memory, clock
        self._checkpoints = CheckpointWriter(trainer, folder, metadata, clock)
        self._due = Due(trainer.request, trainer.total, trainer.steps_per_epoch)
        validation = trainer.request.validation
        self.state = RunState(early_stopping=EarlyStopping(validation.patience, validation.min_delta),
                              loss_scale=trainer.initial_loss_scale)
        self._unread: list[tuple[Tensor, Tensor]] = []
        self._read_at = clock()
        self._rate = StepRate(0, clock)
        self.undrawn: list[int] = []
        """Steps whose sample picture did not fit in memory."""
        self.memory_saved = False
        """Whether a step did not fit, and `save_memory` was called for it."""

    def run(self) -> LoopResult:
        """Train until the length is reached, early stopping ends it, or the user does.

        Raises:
            AtelierError: the loss became NaN or infinite, memory ran out, or nothing was learnt. What was learnt before
                is saved.
            BaseException: whatever `progress.check` raises to interrupt; state and partial LoRA are saved first.
        """
        trainer = self.trainer
        saved = self._checkpoints.resume()
        if saved is not None:
            self.state = saved
        self.state.history.show(self.progress, self.folder)
        if saved is not None and saved.early_stopping.best_step:
            self.progress.measure({"step": saved.step, "best_step": saved.early_stopping.best_step})
        began_step = self.state.step
        self._rate = StepRate(began_step, self._clock)
        self.progress.phase("training", trainer.total)
        with random_state_kept():
            if saved is not None:  # the interruption may have come between a step and what was due after it
                self._do_due(resumed=True)
            try:
                status = self._train()
            except OtherProcessFailed:
                self._keep_work()
                raise
            return self._finish(status, began_step)

    def _train(self) -> str:
        while self.state.step < self.trainer.total and not self.state.early_stopping.done:
            self._check_interrupt()
            # Before the first step there is nothing to keep.
            if self.state.step and self.trainer.processes.any(self.progress.stop_requested()):
                return "stopped by user"
            self._step()
        return "stopped early" if self.state.step < self.trainer.total else "complete"

    def _step(self) -> None:
        trainer, state = self.trainer, self.state
        result = self._try_step()
        if result is None and trainer.captured.give_up(f"memory ran out at step {state.step + 1}"):
            result = self._try_step()
        if result is None and self._save_memory is not None and trainer.processes.count == 1:
            self._save_memory()
            self._save_memory, self.memory_saved = None, True
            log.warning("Memory ran out at step %d; training goes on with gradient checkpointing.", state.step + 1)
            result = self._try_step()
        if result is None:
            self._keep_work()
            raise AtelierError(
                f"Memory ran out at step {state.step + 1} (batch size {trainer.request.optimizer.batch_size}, gradient "
                f"checkpointing {trainer.request.device.gradient_checkpointing}).",
                "Choose a smaller batch size or resolution, or gradient checkpointing \"on\". The steps before are "
                "saved: with gradient checkpointing, training goes on from them.")
        state.step += 1
        state.loss_scale = result.loss_scale
        self._unread.append((result.loss, result.finite))
        if trainer.device.type == "cpu" or self._clock() - self._read_at > READ_SECONDS:
            self._read()
        if state.step % trainer.steps_per_epoch == 0:
            self._end_epoch()
        self._do_due()

    def _try_step(self) -> StepResult | None:
        """Do the next step; None, and everything as before it, if memory runs out."""
        try:
            with unify_memory_errors():
                return self.trainer.train_step(self.state.step, self.state.loss_scale)
        except OutOfMemory as error:
            log.info("%s", error)
        except OtherProcessFailed:  # `run` keeps the work
            raise
        except BaseException:  # as in `_check_interrupt`: the host's own networks raise its interrupt
            self.trainer.drop_step(self.state.step)
            self._keep_work()
            raise
        # Only here: while the error was being handled, it held what the step had computed.
        self.trainer.drop_step(self.state.step)
        free_cache(self.trainer.device)
        return None

    def _do_due(self, *, resumed: bool = False) -> None:
        """Validate, save and draw where that is due after the step that was done last."""
        state, save_every = self.state, self.trainer.request.output.save_every
        if self._due.validation(state):
            self._judge(self._validate())
        if save_every and state.step % save_every == 0:
            self._read()
            self._checkpoints.save_lora(self.folder.at(state.step), state.step)
            self._checkpoints.save_state(state)
        elif self._checkpoints.due:
            self._read()
            self._checkpoints.save_state(state)
        judged = self._due.judged_round(state)
        due = judged or (self._due.sample(state) and not (resumed and state.step in self.folder.drawn))
        # The request first: a sample that is due answers it.
        if self.draw and self.trainer.processes.from_first(lambda: self.progress.sample_requested() or due):
            score = self._sample(self.draw)
            if judged and score:
                self._judge(self._judged_by(score))

    def _sample(self, draw: Draw, weights: list[Tensor] | None = None) -> RoundScore | None:
        state, score = self.state, None
        self._read()
        self._checkpoints.save_state(state)  # drawing needs the most memory; what was learnt is safe before it starts
        fits = False
        try:
            with unify_memory_errors(), self._off_the_clock():
                score = draw(state.step, weights)
            fits = True
        except OutOfMemory as error:
            log.info("%s", error)
        except BaseException:  # the host's interrupt is not an Exception; whatever it is, it goes on up
            self._checkpoints.save_lora(self.folder.last, state.step)
            raise
        self.progress.phase("training", self.trainer.total)
        if not fits:
            # Only here: while the error was being handled, it held what had been computed.
            free_cache(self.trainer.device)
            if self.trainer.captured.give_up("memory ran out for a sample picture"):
                return self._sample(draw, weights)
            self.undrawn.append(state.step)
            log.warning("The sample picture of step %d did not fit in memory; training goes on without it.", state.step)
            self.progress.advance(state.step, "no memory for a sample picture; training goes on without it")
        return score

    def _is_drawn(self) -> bool:
        """Whether this step's samples are there."""
        return self.trainer.processes.from_first(lambda: self.state.step in self.folder.drawn)

    @contextmanager
    def _off_the_clock(self) -> Iterator[None]:
        """Keep what is no training step out of the rate."""
        began = self._clock()
        try:
            yield
        finally:
            self._rate.leave_out(self._clock() - began)

    def _read(self) -> None:
        """Fetch the losses of the steps since the last reading, and check them."""
        if not self._unread:
            return
        state = self.state
        values = torch.stack([torch.stack((loss, finite.float())) for loss, finite in self._unread]).tolist()
        self._unread.clear()
        self._read_at = self._clock()
        if not all(finite for _, finite in values):
            first = state.step - len(values) + 1 + [bool(finite) for _, finite in values].index(False)
            self._fail_on_nan(first)
        losses = [loss for loss, _ in values]
        state.history.losses += losses
        state.epoch_losses += losses
        self._checkpoints.mark_finite(state.step)
        self._show(losses[-1])

    def _show(self, loss: float) -> None:
        trainer, step = self.trainer, self.state.step
        rate = self._rate.update(step)
        self.progress.measure({"step": step, "steps": trainer.total, "loss": loss, "lr": trainer.learning_rate,
                               "epoch": step / trainer.steps_per_epoch, "steps_per_second": rate})
        self.progress.advance(step, f"step {step}/{trainer.total} · loss {loss:.4f} · "
                                    + format_rate(rate, trainer.total - step))

    def _fail_on_nan(self, step: int) -> None:
        kept = ""
        if self._checkpoints.save_last_finite():
            kept = f" The weights of step {self._checkpoints.finite_step} are kept in {self.folder.last}."
        if damaged := self.trainer.adapters.damaged_weight():
            raise AtelierError(f"The model itself is damaged: {damaged} holds NaN or infinite values.{kept}",
                               "Download or convert the model again; where its weights are too large for float16, "
                               "choose precision bf16 or fp32.")
        raise AtelierError(f"The loss became NaN or infinite at step {step}.{kept}",
                           "Lower the learning rate, or choose precision bf16 or fp32, and start again.")

    def _end_epoch(self) -> None:
        self._read()
        state = self.state
        mean = sum(state.epoch_losses) / len(state.epoch_losses)
        state.history.epochs.append((state.step, mean))
        state.epoch_losses = []
        if self.trainer.request.validation.monitor == "epoch":
            self._judge(mean)

    def _judged_by(self, score: RoundScore) -> float:
        """What early stopping is to make small."""
        value = getattr(score, self.trainer.request.validation.monitor)
        self.state.history.judged.append((self.state.step, value))
        return -value

    def _validate(self) -> float:
        state = self.state
        self._read()
        loss: float | None = None
        try:
            with self._off_the_clock(), unify_memory_errors():
                loss = self.trainer.validate(self.progress.check)
        except OutOfMemory as error:
            log.info("%s", error)
        except BaseException:  # as in `_check_interrupt`
            self._keep_work()
            raise
        if loss is None:  # out of the handler, as in `_try_step`
            free_cache(self.trainer.device)
            if self.trainer.captured.give_up("memory ran out in a validation"):
                return self._validate()
            self._keep_work()
            raise AtelierError(
                f"Memory ran out while validating after step {state.step}.",
                "Choose a smaller batch size or resolution, or let early stopping watch the training loss (monitor "
                "\"epoch\"). What was learnt is saved.")
        state.history.validation.append((state.step, loss))
        self.progress.measure({"step": state.step, "validation_loss": loss})
        return loss

    def _judge(self, loss: float) -> None:
        """Give `loss` to early stopping, and keep the weights if it is the best so far."""
        state = self.state
        stopping = state.early_stopping.update(loss, state.step)
        if not stopping.improved:
            state.early_stopping = stopping
        elif self._checkpoints.save_lora(self.folder.best, state.step):  # weights that are untrained are not the best
            state.early_stopping = stopping
            self.progress.measure({"step": state.step, "best_step": state.step})
            self._checkpoints.save_state(state)

    def _check_interrupt(self) -> None:
        try:
            with self.trainer.processes.together():
                self.progress.check()
        except BaseException:  # the host's interrupt is not an Exception; whatever it is, it goes on up
            self._keep_work()
            raise

    def _keep_work(self) -> None:
        """Save the state, and the LoRA as it is, of a run that ends here before its time."""
        self._read()
        if self.state.step:
            self._checkpoints.save_all(self.state)

    def _finish(self, status: str, began_step: int) -> LoopResult:
        """Save everything, validate the last weights, and draw a sample with those that are handed on."""
        self._read()
        state = self.state
        if not self._checkpoints.save_all(state):
            raise AtelierError(
                f"Nothing was learnt in {state.step} steps"
                + (": their gradients overflowed in float16." if state.loss_scale.on else "."),
                "Train for more steps, or choose precision bf16 or fp32.")
        final = self._final_validation(status)
        best = final.early_stopping.best_step
        weights = self.folder.best if 0 < best == state.early_stopping.best_step else self.folder.last
        best_handed_on = weights == self.folder.best
        if self.draw and not (self._due.by_score and (best_handed_on or self._is_drawn())):
            self._sample(self.draw, self._checkpoints.best_weights() if best_handed_on else None)
        self.progress.phase("saving", 1)
        return LoopResult(status=status, weights=weights, state=final, began_step=began_step)

    def _final_validation(self, status: str) -> RunState:
        """The run's state after validating its last weights, where no validation was due there anyway.

        The saved state leaves it out, so that a run that is made longer goes on as if it had been so from the start.
        """
        state = self.state
        by_loss = self._due.by_loss and not self._due.validated(state)
        if status != "complete" or not (by_loss or (self._due.by_score and not self._due.round_judged(state))):
            return state
        history = state.history
        state.history = History(history.losses, list(history.validation), history.epochs, list(history.judged))
        try:
            loss = self._validate() if by_loss else self._final_round()
            stopping = state.early_stopping if loss is None else state.early_stopping.update(loss, state.step)
            return replace(state, early_stopping=stopping)
        finally:
            state.history = history

    def _final_round(self) -> float | None:
        score = self._sample(self.draw) if self.draw else None
        return None if score is None else self._judged_by(score)
