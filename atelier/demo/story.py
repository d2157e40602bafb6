"""The whole product in one go: convert, train, generate with and without the LoRA, score, compose, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..convert.folder import to_folder
from ..dataset.folder import FolderOptions, read_folder
from ..dataset.types import Crop, Resolution
from ..files import whole_file, write_json, write_text
from ..models.open import open_model
from ..progress import Monitor
from ..sampling import SamplingOptions
from ..train.config import TrainConfig
from ..train.place import Workplace, pick_device, pick_dtype

if TYPE_CHECKING:
    from ..generate import Picture
    from ..score.result import Scores
    from ..train.report import TrainReport

Result = TypeVar("Result")

BLOCK = 2
CELL = 128


@dataclass(frozen=True)
class Scoring:
    """How the pictures are judged."""

    clip: Path
    """A CLIP model, as `atelier.score.load.open_scorer` takes it."""
    style: str
    """Text that names the style alone."""


@dataclass(frozen=True)
class Story:
    """What to convert, train, draw and score."""

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
    """Drawn without and with the LoRA, each from its own seed."""
    contents: tuple[str, ...]
    """The same prompts without words for the style; also drawn with the LoRA, to see what it changes unasked."""
    resolution: Resolution
    config: TrainConfig
    sampling: SamplingOptions
    scoring: Scoring | None = None
    title: str = "Before and after"
    batch_size: int = 4
    """Pictures drawn at once."""


@dataclass
class Told:
    """What came out."""

    story: Story
    out: Path
    training: TrainReport
    rows: Mapping[str, list[Picture]]
    """"base", "lora" and "lora, unasked": a picture for each prompt."""
    content_scores: Mapping[str, Scores] = field(default_factory=dict)
    """Of "base" and "lora" against `Story.contents`, with the style as second text."""
    grid: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage."""
    notes: list[str] = field(default_factory=list)

    def numbers(self) -> dict[str, object]:
        """The summary as plain values, for JSON."""
        outcome = self.training.outcome
        return {
            "lora": str(self.training.lora), "status": outcome.status, "steps": outcome.step, "of": outcome.total,
            "best_step": outcome.best_step, "best_loss": outcome.best_loss, "seconds": self.seconds,
            "scores": {name: {"content": scores.mean, "style": _style(scores)}
                       for name, scores in self.content_scores.items()},
            "pictures": str(self.out / "pictures"), "grid": str(self.grid), "page": str(self.out / "index.html"),
        }

    def text(self) -> str:
        """The summary for a person."""
        lines = [self.training.text(), ""]
        for name, scores in self.content_scores.items():
            lines.append(f"CLIP score of {name}: content {scores.mean:.3f}, style {_style(scores):.3f} "
                         f"(cosine, n {len(scores.items)})")
        lines.append("seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in self.seconds.items())
                     + f"; together {sum(self.seconds.values()):.0f}")
        return "\n".join([*lines, *self.notes, f"Pictures, plot and table: {self.out / 'index.html'}"])


def tell(story: Story, out: Path, *, device: str = "auto", monitor: Monitor | None = None) -> Told:
    """Do all of it. Folders in `out`: `diffusers/` `loras/` `pictures/` `work/`, and `index.html`.

    What an earlier call finished (conversion, encoding, training) is found and not repeated.

    Raises:
        AtelierError: whatever a stage has to complain about.
        Interrupted: `monitor` asked to stop.
    """
    from ..generate import GenerateRequest, generate
    from .page import write_page

    watch, seconds = monitor or Monitor(), {}

    def timed(stage: str, work: Callable[[], Result]) -> Result:
        began = time.monotonic()
        result = work()
        seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - began
        return result

    folder = out / "diffusers" / story.model.stem
    timed("convert", lambda: folder.exists() or to_folder(story.model, folder, monitor=watch))
    model = timed("convert", lambda: open_model(folder))
    data = read_folder(story.pictures, FolderOptions(resolution=story.resolution, prior=story.prior), watch)
    place = Workplace(out / "loras", out / "work" / "runs", out / "work" / "cache", device)
    # Training loads its own part of torch, diffusers and PEFT; a machine's first start counts as training here.
    from ..train.run import train
    training = timed("train", lambda: train(story.name, model, data, story.config, place, watch))

    where = pick_device(device)
    dtype = pick_dtype("auto", where, sampling=True)
    seeds = tuple(range(100, 100 + len(story.prompts)))
    plain = GenerateRequest(story.prompts, seeds, options=story.sampling, batch_size=story.batch_size)
    tuned = replace(plain, lora=training.lora)
    rows = {name: timed("generate", lambda request=request: generate(model, request, device=where, dtype=dtype,
                                                                     monitor=watch))
            for name, request in (("base", plain), ("lora", tuned),
                                  ("lora, unasked", replace(tuned, prompts=story.contents)))}
    told = Told(story, out, training, rows, seconds=seconds)
    if story.scoring is not None:
        told.content_scores = timed("score", lambda: _scores(story, rows, watch))
    told.grid = timed("compose", lambda: _grid(told))
    timed("compose", lambda: _save_all(told))
    write_page(told)
    return told


def _scores(story: Story, rows: Mapping[str, list[Picture]], monitor: Monitor) -> dict[str, Scores]:
    from ..score.load import open_scorer

    assert story.scoring is not None
    scorer = open_scorer(story.scoring.clip)
    return {name: scorer.score([picture.image for picture in rows[name]], list(story.contents),
                               style=story.scoring.style, monitor=monitor) for name in ("base", "lora")}


def _grid(told: Told) -> Path:
    """A 2 × 2 block for each picture of the tuned model, the other cells filled."""
    from ..grid.compose import compose
    from ..grid.fillers import fillers_from_folder
    from ..grid.layout import Layout, arrange, rows_for
    from ..grid.manifest import Origin, describe

    story, tuned = told.story, told.rows["lora"]
    layout = Layout(*rows_for(len(tuned), 4), BLOCK, CELL, CELL)
    fillers = fillers_from_folder(story.fillers, len(tuned) * (layout.cells_of_block - 1), seed=0, allow_repeats=True)
    places = arrange(layout, len(tuned), len(fillers))
    grid = compose(layout, places, [picture.image for picture in tuned], [filler.picture for filler in fillers])
    manifest = describe(layout, places, [Origin(picture.prompt, picture.seed, story.name) for picture in tuned],
                        [Origin(source=filler.path.name) for filler in fillers], seed=0)
    path = told.out / "pictures" / "grid.png"
    with whole_file(path) as part:
        grid.save(part, "PNG")
    write_json(path.with_suffix(".json"), manifest.to_json())
    return path


def _save_all(told: Told) -> None:
    """Save every picture under row and number, with sidecars; those of an earlier call are replaced."""
    for name, pictures in told.rows.items():
        for i, picture in enumerate(pictures):
            picture.save(told.out / "pictures" / picture_name(name, i))
    for name, scores in told.content_scores.items():
        write_text(told.out / "pictures" / f"scores {name}.csv", scores.csv())


def picture_name(row: str, index: int) -> str:
    """The file name of a row's picture."""
    return f"{row} {index + 1}.png"


def _style(scores: Scores) -> float:
    return sum(item.style or 0.0 for item in scores.items) / len(scores.items)


def square(size: int) -> Resolution:
    """Centre crops of `size` pixels."""
    return Resolution(size, Crop.CENTER)
