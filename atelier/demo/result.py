"""The demo's request and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..dataset.types import Resolution
from ..sampling import SamplingOptions
from ..train.request.request import TrainRequest

if TYPE_CHECKING:
    from ..generate import Picture
    from ..score.result import Scores
    from ..train.report import TrainReport


@dataclass(frozen=True)
class Scoring:
    """How to score the pictures."""

    clip: Path
    """A CLIP model, as `atelier.score.load.open_scorer` takes it."""
    style: str
    """Text that names the style alone."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """The demo's request: what to convert, train, generate and score."""

    model: Path
    """The checkpoint."""
    pictures: Path
    """Training pictures with caption files."""
    prior: Path | None
    """Pictures of the model's own look that training is to preserve."""
    fillers: Path
    name: str
    """Of the LoRA."""
    prompts: tuple[str, ...]
    """Generated without and with the LoRA, each from its own seed."""
    contents: tuple[str, ...]
    """The same prompts without words for the style; also generated with the LoRA, to show
    what it changes unasked."""
    resolution: Resolution
    request: TrainRequest
    sampling: SamplingOptions
    scoring: Scoring | None = None
    title: str = "Before and after"
    batch_size: int = 4
    """Pictures generated per batch."""


@dataclass(kw_only=True)
class StoryResult:
    """Everything that a run of the demo produced."""

    story: Story
    out: Path
    training: TrainReport
    rows: Mapping[str, list[Picture]]
    """"base", "lora" and "lora, unasked": one picture for each prompt."""
    content_scores: Mapping[str, Scores] = field(default_factory=dict)
    """Of "base" and "lora" against `Story.contents`, with the style as second text."""
    grid: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage."""
    notes: list[str] = field(default_factory=list)

    def numbers(self) -> dict[str, object]:
        """The summary as plain values, for JSON."""
        outcome = self.training.result
        return {
            "lora": str(self.training.lora), "status": outcome.status, "steps": outcome.step, "of": outcome.total,
            "best_step": outcome.best_step, "best_loss": outcome.best_loss, "seconds": self.seconds,
            "scores": {name: {"content": scores.mean, "style": _style(scores)}
                       for name, scores in self.content_scores.items()},
            "pictures": str(self.out / "pictures"), "grid": str(self.grid), "page": str(self.out / "index.html"),
        }

    def text(self) -> str:
        """The summary as text."""
        lines = [self.training.text(), ""]
        for name, scores in self.content_scores.items():
            lines.append(f"CLIP score of {name}: content {scores.mean:.3f}, style {_style(scores):.3f} "
                         f"(cosine, n {len(scores.items)})")
        lines.append("seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in self.seconds.items())
                     + f"; together {sum(self.seconds.values()):.0f}")
        return "\n".join([*lines, *self.notes, f"Pictures, plot and table: {self.out / 'index.html'}"])


def picture_name(row: str, index: int) -> str:
    """The file name of a row's picture."""
    return f"{row} {index + 1}.png"


def _style(scores: Scores) -> float:
    return sum(item.style or 0.0 for item in scores.items) / len(scores.items)
