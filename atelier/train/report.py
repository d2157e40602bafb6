"""How a run ended, for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..progress import Progress
from .history import History
from .request.recipe import SCORES
from .run_folder import RoundScore, RunFolder


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The numbers of a finished run, as its report file holds them."""

    status: str
    """"complete", "stopped early" or "stopped by user"."""
    weights: str
    """Which of the run's LoRA files is the result: "best.safetensors" or "last.safetensors"."""
    step: int
    """Optimiser steps done."""
    total: int
    """Optimiser steps asked for."""
    steps_per_epoch: int
    best_step: int
    """Step of the best validation; 0 without validation."""
    best_loss: float | None
    """Of the best step; where a score is watched, the negative of that."""
    seconds: float
    """Spent training in the process that finished the run, encoding not counted."""
    seconds_per_step: float
    pictures: int
    precision: str
    gradient_checkpointing: bool
    samples: str = ""
    """Digest of how its sample pictures are drawn; empty without a sample prompt."""
    monitor: str = "validation"
    """What its best step was judged by."""
    history: History = field(default_factory=History)
    held_out_names: list[str] = field(default_factory=list)
    """File names of the pictures kept for validation."""
    warnings: list[str] = field(default_factory=list)
    """Sentences on what was left out."""

    @property
    def stopped(self) -> bool:
        """True when the user ended the run and kept what it had learnt; it can go on."""
        return self.status == "stopped by user"

    def show(self, progress: Progress, folder: RunFolder) -> None:
        """Tell `progress` of the whole run, as if it were seen again."""
        self.history.show(progress, folder)
        progress.measure({"step": self.step, "steps": self.total, "epoch": self.step / self.steps_per_epoch,
                         **({"best_step": self.best_step} if self.best_step else {})})

    def as_dict(self) -> dict[str, Any]:
        """For the report file."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Any) -> RunResult | None:
        """The inverse of `as_dict`; None for what that did not make."""
        try:
            return RunResult(**{**values, "history": History.from_dict(values["history"])})
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """What `atelier.train.run.train` returns."""

    name: str
    lora: Path
    """The written LoRA file."""
    folder: RunFolder
    result: RunResult
    reused: bool
    """True when an earlier run with the same model, pictures and configuration was found finished."""
    saved: Mapping[int, Path] = field(default_factory=dict)
    """The written LoRA files of saved steps, by step."""

    @property
    def steps(self) -> list[Path]:
        """All LoRA files of the run by their steps, each of other weights, the finished one last."""
        done = self.result.best_step if self.result.weights == self.folder.best.name else self.result.step
        return [*(path for step, path in sorted(self.saved.items()) if step != done), self.lora]

    def text(self) -> str:
        """A few lines for a person."""
        o, losses = self.result, self.result.history.losses
        lines = [f"{self.name}: {o.status} after {o.step} of {o.total} steps"
                 f" ({o.step / o.steps_per_epoch:.1f} epochs of {o.pictures} pictures)"
                 + (", reused from an earlier run" if self.reused else "")]
        if o.stopped:
            lines.append(f"{o.total - o.step} steps are left; training can go on from here")
        if o.best_step:
            lines.append(f"best {o.monitor} {-(o.best_loss or 0):.4f} at step {o.best_step}" if o.monitor in SCORES else
                         f"best loss {o.best_loss:.5f} at step {o.best_step}")
        lines += _scores(self.folder.scores)
        if losses:
            first, last = _mean(losses, 0, 0.1), _mean(losses, 0.9, 1)
            lines.append(f"training loss: first tenth {first:.4f}, last tenth {last:.4f}")
        if o.held_out_names:
            names = ", ".join(o.held_out_names[:10]) + ", …" * (len(o.held_out_names) > 10)
            lines.append(f"{len(o.held_out_names)} pictures were kept out of training to validate on: {names}")
        lines.append(f"{o.seconds_per_step:.3f} s a step in {o.precision}"
                     + (", with gradient checkpointing" if o.gradient_checkpointing else ""))
        files = [f"{len(self.saved)} saved steps beside it: {self.lora.stem}-…"] if self.saved else []
        return "\n".join([*lines, *o.warnings, f"LoRA: {self.lora}", *files])


def _scores(scores: Mapping[int, RoundScore]) -> list[str]:
    """How the scores of samples went, against the base model's."""
    trained = [step for step in scores if step]
    if not trained or 0 not in scores:
        return []
    base, last, best = scores[0], scores[trained[-1]], max(trained, key=lambda step: scores[step].fidelity)
    return [f"samples of step {trained[-1]}: fidelity {last.fidelity:.4f} (base model {base.fidelity:.4f}), "
            f"likeness {last.likeness:.4f} (base model {base.likeness:.4f}); "
            f"best fidelity {scores[best].fidelity:.4f} at step {best}"]


def _mean(values: list[float], start: float, end: float) -> float:
    part = values[int(len(values) * start):max(math.ceil(len(values) * end), 1)]
    return sum(part) / len(part)
