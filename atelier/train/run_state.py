"""The state of a run: what changes from step to step beside the weights. The loop owns it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .early_stopping import EarlyStopping
from .history import History
from .loss_scale import LossScale


@dataclass(kw_only=True)
class RunState:
    """Where a run is. Random numbers need no state: they are derived from (seed, step), see `bucket_sampler`."""

    early_stopping: EarlyStopping
    step: int = 0
    """Optimiser steps done."""
    history: History = field(default_factory=History)
    epoch_losses: list[float] = field(default_factory=list)
    """Training losses of the epoch that is under way."""
    loss_scale: LossScale = field(default_factory=lambda: LossScale.restored(1.0, 0))
    """float16 only: what the loss is multiplied by before the backward pass."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        scale, steps = self.loss_scale.numbers()
        return {"early_stopping": asdict(self.early_stopping), "step": self.step, "history": asdict(self.history),
                "epoch_losses": self.epoch_losses, "loss_scale": scale, "loss_scale_steps": steps}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> RunState:
        """The inverse of `as_dict`."""
        return RunState(early_stopping=EarlyStopping(**values["early_stopping"]), step=int(values["step"]),
                        history=History.from_dict(values["history"]), epoch_losses=list(values["epoch_losses"]),
                        loss_scale=LossScale.restored(float(values["loss_scale"]),
                                                      int(values.get("loss_scale_steps", 0))))
