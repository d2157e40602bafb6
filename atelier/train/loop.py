"""The only training loop: steps, looks, samples, and every way a run can end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..device_memory import OutOfMemory, explain_out_of_memory, free_cache, unify_memory_errors
from ..errors import AtelierError
from ..progress import Progress
from .checkpoint_writer import CheckpointWriter
from .random_state import random_state_kept
from .run_folder import RunFolder
from .step_rate import StepRate, format_rate
from .trainer import Trainer

log = logging.getLogger("atelier")

READ_SECONDS = 0.25
"""On a device that works ahead of the host, losses are read (which waits for it) no more often than this."""

MIN_VALIDATION_INTERVAL = 50
"""Automatic validation comes at epoch ends, but not more often than this many steps."""


class Loop:
    """Drives a `Trainer` to its end.

    Args:
        trainer: Fresh; a state in `store` is loaded into it.
        store: The run's folder.
        progress: Shown progress, asked to stop.
        metadata: Builds the header of a LoRA file from the step its weights are of.
        draw: Draws a sample picture with the trainer's current weights, or None where none are wanted.
        clock: Seconds, never going back.
    """

    def __init__(self, trainer: Trainer, store: RunFolder, progress: Progress, *,
                 metadata: Callable[[int], Mapping[str, str]], draw: Callable[[], None] | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.trainer, self.store, self.progress = trainer, store, progress
        self.draw, self._clock = draw, clock
        self._checkpoints = CheckpointWriter(trainer, store, metadata, clock)
        self._unread: list[tuple[Tensor, Tensor]] = []
        self._read_at = clock()
        self._pace = StepRate(0, clock)
        self.began_step = 0
        self.undrawn: list[int] = []
        """Steps whose sample picture did not fit in memory."""

    def run(self) -> str:
        """Train until the length is reached, early stopping ends it, or the user does.

        Returns:
            "complete", "stopped early" or "stopped by user".

        Raises:
            AtelierError: the loss became NaN or infinite, memory ran out, or nothing was learnt. What was learnt before
                is saved.
            BaseException: whatever `progress.check` raises to interrupt; state and partial LoRA are saved first.
        """
        trainer = self.trainer
        resumed = self._checkpoints.resume()
        if resumed:
            trainer.history.show(self.progress, self.store.drawn)
            if trainer.early_stopping.best_step:
                self.progress.measure({"step": trainer.step, "best_step": trainer.early_stopping.best_step})
        self.began_step = trainer.step
        self._pace = StepRate(trainer.step, self._clock)
        self.progress.phase("training", trainer.total)
        with random_state_kept():
            if resumed:  # the interruption may have come between a step and what was due after it
                self._do_due(resumed=True)
            while trainer.step < trainer.total and not trainer.early_stopping.done:
                self._poll()
                if trainer.step and self.progress.stop_requested():  # before the first step there is nothing to keep
                    self._finish()
                    return "stopped by user"
                self._step()
            self._finish()
        return "stopped early" if trainer.early_stopping.done and trainer.step < trainer.total else "complete"

    def _step(self) -> None:
        trainer, options = self.trainer, self.trainer.config.options
        try:
            with unify_memory_errors():
                self._unread.append(trainer.train_step())
        except OutOfMemory as error:
            self._keep_work()
            raise AtelierError(
                f"Memory ran out at step {trainer.step + 1} (batch size {options.batch_size}, gradient checkpointing "
                f"{options.gradient_checkpointing}).",
                "Choose a smaller batch size or resolution, or gradient checkpointing \"on\". The steps before are "
                "saved.") from error
        if trainer.device.type == "cpu" or self._clock() - self._read_at > READ_SECONDS:
            self._read()
        if trainer.at_epoch_end:
            self._end_epoch()
        self._do_due()

    def _do_due(self, *, resumed: bool = False) -> None:
        """Validate, save and draw where that is due after the step that was done last."""
        trainer, options = self.trainer, self.trainer.config.options
        if self._validation_due():
            self._look()
        if options.save_every and trainer.step % options.save_every == 0:
            self._read()
            self._checkpoints.save_lora(self.store.at(trainer.step))
            self._checkpoints.save_state()
        elif self._checkpoints.due:
            self._read()
            self._checkpoints.save_state()
        due = self._sample_due() and not (resumed and trainer.step in self.store.drawn)
        # The request first: a sample that is due answers it.
        if self.draw and (self.progress.sample_requested() or due):
            self._sample(self.draw)

    def _sample(self, draw: Callable[[], None]) -> None:
        trainer = self.trainer
        self._read()
        self._checkpoints.save_state()  # drawing needs the most memory; what was learnt is safe before it starts
        fits = True
        try:
            with unify_memory_errors():
                draw()
        except OutOfMemory:
            fits = False
        except BaseException:  # the host's interrupt is not an Exception; whatever it is, it goes on up
            self._checkpoints.save_lora(self.store.last)
            raise
        self.progress.phase("training", trainer.total)
        if not fits:
            free_cache(trainer.device)  # only here: while the error was being handled, it held what had been computed
            self.undrawn.append(trainer.step)
            log.warning("The sample picture of step %d did not fit in memory; training goes on without it.",
                        trainer.step)
            self.progress.advance(trainer.step, "no memory for a sample picture; training goes on without it")

    def _read(self) -> None:
        """Fetch the losses of the steps since the last reading, and check them."""
        if not self._unread:
            return
        trainer = self.trainer
        values = torch.stack([torch.stack((loss, finite.float())) for loss, finite in self._unread]).tolist()
        self._unread.clear()
        self._read_at = self._clock()
        if not all(finite for _, finite in values):
            first = trainer.step - len(values) + 1 + [bool(finite) for _, finite in values].index(False)
            self._fail_on_nan(first)
        losses = [loss for loss, _ in values]
        trainer.history.losses += losses
        trainer.epoch_losses += losses
        self._checkpoints.mark_finite()
        self._show(losses[-1])

    def _show(self, loss: float) -> None:
        trainer = self.trainer
        pace = self._pace.reach(trainer.step)
        self.progress.measure({"step": trainer.step, "steps": trainer.total, "loss": loss, "lr": trainer.rate,
                              "epoch": trainer.step / trainer.steps_per_epoch, "steps_per_second": pace})
        self.progress.advance(trainer.step, f"step {trainer.step}/{trainer.total} · loss {loss:.4f} · "
                                           + format_rate(pace, trainer.total - trainer.step))

    def _fail_on_nan(self, step: int) -> None:
        kept = ""
        if self._checkpoints.save_last_finite():
            kept = f" The weights of step {self._checkpoints.finite_step} are kept in {self.store.last}."
        raise AtelierError(f"The loss became NaN or infinite at step {step}.{kept}",
                           "Lower the learning rate, or choose precision bf16 or fp32, and start again.")

    def _end_epoch(self) -> None:
        trainer = self.trainer
        self._read()
        if trainer.epoch_losses:
            mean = sum(trainer.epoch_losses) / len(trainer.epoch_losses)
            trainer.history.epochs.append((trainer.step, mean))
            trainer.epoch_losses = []
            if trainer.config.options.monitor == "epoch":
                self._judge(mean)

    def _validation_due(self) -> bool:
        trainer, options = self.trainer, self.trainer.config.options
        looks = trainer.history.validation
        if options.monitor != "validation" or (looks and looks[-1][0] == trainer.step):
            return False
        every = options.validate_every or max(trainer.steps_per_epoch, MIN_VALIDATION_INTERVAL)
        return trainer.step % every == 0 or trainer.step == trainer.total

    def _look(self) -> None:
        trainer = self.trainer
        self._read()
        try:
            with explain_out_of_memory(f"validating after step {trainer.step}",
                            "Choose a smaller batch size or resolution, or let early stopping look at the training "
                            "loss (monitor \"epoch\"). What was learnt is saved."):
                loss = trainer.validate(self.progress.check)
        except BaseException:  # as in `_poll`
            self._keep_work()
            raise
        trainer.history.validation.append((trainer.step, loss))
        self.progress.measure({"step": trainer.step, "validation_loss": loss})
        self._judge(loss)

    def _judge(self, loss: float) -> None:
        trainer = self.trainer
        early_stopping = trainer.early_stopping.look(loss, trainer.step)
        if not early_stopping.improved:
            trainer.early_stopping = early_stopping
        elif self._checkpoints.save_best():  # what has learnt nothing yet is not the best
            trainer.early_stopping = early_stopping
            self.progress.measure({"step": trainer.step, "best_step": trainer.step})
        self._checkpoints.save_state()

    def _sample_due(self) -> bool:
        every = self.trainer.config.options.sample_every or max(1, self.trainer.total // 4)
        return self.trainer.step % every == 0 or self.trainer.step == self.trainer.total

    def _poll(self) -> None:
        try:
            self.progress.check()
        except BaseException:  # the host's interrupt is not an Exception; whatever it is, it goes on up
            self._keep_work()
            raise

    def _keep_work(self) -> None:
        """Save the state, and the LoRA as it is, of a run that ends here before its time."""
        self._read()
        if self.trainer.step:
            self._checkpoints.save_all()

    def _finish(self) -> None:
        self._read()
        if not self._checkpoints.save_all():
            raise AtelierError(
                f"Nothing was learnt in {self.trainer.step} steps"
                + (": their gradients overflowed in float16." if self.trainer.loss_scale > 1 else "."),
                "Train for more steps, or choose precision bf16 or fp32.")
        self.progress.phase("saving", 1)
