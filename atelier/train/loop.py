"""The only training loop: steps, looks, samples, saving, and every way a run can end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ..errors import AtelierError
from ..lora.file import save_lora
from ..progress import Monitor
from .pace import Pace
from .state import load_state, save_state
from .store import RunStore
from .trainer import Trainer

log = logging.getLogger("atelier")

STATE_SECONDS = 120.0
"""At most so much work is lost to a kill or a power cut."""

READ_SECONDS = 0.25
"""On a device that works ahead of the host, losses are read (which waits for it) no more often than this."""

LOOK_STEPS = 50
"""Automatic validation comes at epoch ends, but not more often than this many steps."""


class Loop:
    """Drives a `Trainer` to its end.

    Args:
        trainer: Fresh; a state in `store` is loaded into it.
        store: The run's folder.
        monitor: Shown progress, asked to stop.
        metadata: Builds the header of a LoRA file from the step its weights are of.
        draw: Draws a sample picture with the trainer's current weights, or None where none are wanted.
        clock: Seconds, never going back.
    """

    def __init__(self, trainer: Trainer, store: RunStore, monitor: Monitor, *,
                 metadata: Callable[[int], Mapping[str, str]], draw: Callable[[], None] | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.trainer, self.store, self.monitor = trainer, store, monitor
        self.metadata, self.draw, self._clock = metadata, draw, clock
        self._unread: list[tuple[Tensor, Tensor]] = []
        self._good = trainer.adapters.snapshot()
        self._good_step = 0
        self._read_at = self._saved_at = clock()
        self._pace = Pace(0, clock)
        self.began_step = 0

    def run(self) -> str:
        """Train until the length is reached, early stopping ends it, or the user does.

        Returns:
            "complete", "stopped early" or "stopped by user".

        Raises:
            AtelierError: the loss became NaN or infinite, or memory ran out. What was learnt before is saved.
            BaseException: whatever `monitor.check` raises to interrupt; state and partial LoRA are saved first.
        """
        trainer = self.trainer
        if self.store.state.exists():
            load_state(self.store.state, trainer)
            self._good, self._good_step = trainer.adapters.snapshot(), trainer.step
            log.info("Training goes on from step %d of %d.", trainer.step, trainer.total)
            trainer.history.show(self.monitor, self.store.drawn)
            if trainer.stopper.best_step:
                self.monitor.measure({"step": trainer.step, "best_step": trainer.stopper.best_step})
        self.began_step = trainer.step
        self._pace = Pace(trainer.step, self._clock)
        self.monitor.phase("training", trainer.total)
        with _random_state_kept(trainer.device):
            while trainer.step < trainer.total and not trainer.stopper.done:
                self._poll()
                if trainer.step and self.monitor.stop_requested():  # before the first step there is nothing to keep
                    self._finish()
                    return "stopped by user"
                self._step()
            self._finish()
        return "stopped early" if trainer.stopper.done and trainer.step < trainer.total else "complete"

    def _step(self) -> None:
        trainer, options = self.trainer, self.trainer.config.options
        try:
            self._unread.append(trainer.train_step())
        except torch.OutOfMemoryError as error:
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
        if self._look_due():
            self._look()
        if options.save_every and trainer.step % options.save_every == 0:
            self._read()
            save_lora(self.store.at(trainer.step), trainer.adapters.weights(trainer.current),
                      metadata=self.metadata(trainer.step))
            self._save()
        elif self._clock() - self._saved_at > STATE_SECONDS:
            self._read()
            self._save()
        # The request first: a sample that is due answers it.
        if self.draw and (self.monitor.sample_requested() or self._sample_due()):
            self._read()
            self._save()  # drawing needs the most memory; what was learnt is safe before it starts
            self.draw()
            self.monitor.phase("training", trainer.total)

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
        self._good, self._good_step = trainer.adapters.snapshot(), trainer.step
        self._show(losses[-1])

    def _show(self, loss: float) -> None:
        trainer = self.trainer
        pace = self._pace.reach(trainer.step)
        left = (trainer.total - trainer.step) / max(pace, 1e-9)
        self.monitor.measure({"step": trainer.step, "steps": trainer.total, "loss": loss, "lr": trainer.rate,
                              "epoch": trainer.step / trainer.steps_per_epoch, "steps_per_second": pace})
        self.monitor.advance(trainer.step, f"step {trainer.step}/{trainer.total} · loss {loss:.4f} · {_pace(pace)} · "
                                           f"{int(left // 60)}:{int(left % 60):02d} left")

    def _fail_on_nan(self, step: int) -> None:
        trainer = self.trainer
        trainer.adapters.load(self._good)
        kept = ""
        if self._good_step:
            save_lora(self.store.last, trainer.adapters.weights(), metadata=self.metadata(self._good_step))
            kept = f" The weights of step {self._good_step} are kept in {self.store.last}."
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

    def _look_due(self) -> bool:
        trainer, options = self.trainer, self.trainer.config.options
        if options.monitor != "validation":
            return False
        every = options.validate_every or max(trainer.steps_per_epoch, LOOK_STEPS)
        return trainer.step % every == 0 or trainer.step == trainer.total

    def _look(self) -> None:
        trainer = self.trainer
        self._read()
        loss = trainer.validate()
        trainer.history.validation.append((trainer.step, loss))
        self.monitor.measure({"step": trainer.step, "validation_loss": loss})
        self._judge(loss)

    def _judge(self, loss: float) -> None:
        trainer = self.trainer
        trainer.stopper = trainer.stopper.look(loss, trainer.step)
        if trainer.stopper.improved:
            self.monitor.measure({"step": trainer.step, "best_step": trainer.step})
            trainer.best = [tensor.detach().clone() for tensor in trainer.current]
            save_lora(self.store.best, trainer.adapters.weights(trainer.best), metadata=self.metadata(trainer.step))
        self._save()

    def _sample_due(self) -> bool:
        every = self.trainer.config.options.sample_every or max(1, self.trainer.total // 4)
        return self.trainer.step % every == 0 or self.trainer.step == self.trainer.total

    def _poll(self) -> None:
        try:
            self.monitor.check()
        except BaseException:  # the host's interrupt is not an Exception; whatever it is, it goes on up
            self._keep_work()
            raise

    def _keep_work(self) -> None:
        """Save the state, and the LoRA as it is, of a run that ends here before its time."""
        self._read()
        if self.trainer.step:
            self._save()
            save_lora(self.store.last, self.trainer.adapters.weights(self.trainer.current),
                      metadata=self.metadata(self.trainer.step))

    def _finish(self) -> None:
        self._keep_work()
        if self.trainer.step:
            self.monitor.phase("saving", 1)

    def _save(self) -> None:
        save_state(self.store.state, self.trainer)
        self._saved_at = self._clock()


def _pace(steps_per_second: float) -> str:
    return f"{steps_per_second:.2f} it/s" if steps_per_second >= 1 else f"{1 / max(steps_per_second, 1e-9):.1f} s/it"


def _random_state_kept(device: torch.device) -> AbstractContextManager[None]:
    devices = [device] if device.type == "cuda" else []
    return torch.random.fork_rng(devices=devices)
