"""Run the whole demo: convert, train, generate with and without the LoRA, score, compose, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..convert.folder import to_folder
from ..dataset.folder import FolderOptions, read_folder
from ..dataset.types import Crop, Resolution
from ..files import atomic_file, write_json, write_text
from ..models.open import open_model
from ..progress import Progress
from ..train.devices import RunPaths, pick_device, pick_dtype
from .page import write_page
from .result import Story, StoryResult, picture_name

if TYPE_CHECKING:
    from ..generate import Picture
    from ..score.result import Scores

Result = TypeVar("Result")

BLOCK = 2
CELL = 128


def run_story(story: Story, out: Path, *, device: str = "auto", progress: Progress | None = None) -> StoryResult:
    """Run every stage of `story`. Writes into `out`: `diffusers/` `loras/` `pictures/` `work/`, and `index.html`.

    Stages that an earlier call finished (conversion, encoding, training) are not repeated.

    Raises:
        AtelierError: a stage failed.
        Interrupted: `progress` asked to stop.
    """
    from ..generate import GenerateRequest, generate

    reporter, seconds = progress or Progress(), {}

    def timed(stage: str, work: Callable[[], Result]) -> Result:
        began = time.monotonic()
        result = work()
        seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - began
        return result

    folder = out / "diffusers" / story.model.stem
    timed("convert", lambda: folder.exists() or to_folder(story.model, folder, progress=reporter))
    model = timed("convert", lambda: open_model(folder))
    data = read_folder(story.pictures, FolderOptions(resolution=story.resolution, prior=story.prior), reporter)
    paths = RunPaths(out / "loras", out / "work" / "runs", out / "work" / "cache", device)
    # Imported here, so that the seconds of loading torch, diffusers and PEFT count as training.
    from ..train.run import train
    training = timed("train", lambda: train(story.name, model, data, story.request, paths, reporter))

    where = pick_device(device)
    dtype = pick_dtype("auto", where)  # as in training: what a processor's float32 adds is not seen at these sizes
    seeds = tuple(range(100, 100 + len(story.prompts)))
    plain = GenerateRequest(prompts=story.prompts, seeds=seeds, options=story.sampling, batch_size=story.batch_size)
    tuned = replace(plain, lora=training.lora)
    rows = {name: timed("generate", lambda request=request: generate(model, request, device=where, dtype=dtype,
                                                                     progress=reporter))
            for name, request in (("base", plain), ("lora", tuned),
                                  ("lora, unasked", replace(tuned, prompts=story.contents)))}
    result = StoryResult(story=story, out=out, training=training, rows=rows, seconds=seconds)
    if story.scoring is not None:
        result.content_scores = timed("score", lambda: _scores(story, rows, reporter))
    result.grid = timed("compose", lambda: _grid(result))
    timed("compose", lambda: _save_all(result))
    write_page(result)
    return result


def _scores(story: Story, rows: Mapping[str, list[Picture]], progress: Progress) -> dict[str, Scores]:
    from ..score.load import open_scorer

    assert story.scoring is not None
    scorer = open_scorer(story.scoring.clip)
    return {name: scorer.score([picture.image for picture in rows[name]], list(story.contents),
                               style=story.scoring.style, progress=progress) for name in ("base", "lora")}


def _grid(result: StoryResult) -> Path:
    """A 2 × 2 block for each picture of the tuned model, the other cells filled."""
    from ..grid.compose import compose
    from ..grid.fillers import fillers_from_folder
    from ..grid.layout import Layout, arrange, rows_for
    from ..grid.manifest import Origin, describe

    story, tuned = result.story, result.rows["lora"]
    rows, columns = rows_for(len(tuned), 4)
    layout = Layout(rows=rows, columns=columns, block=BLOCK, cell_width=CELL, cell_height=CELL)
    fillers = fillers_from_folder(story.fillers, len(tuned) * (layout.cells_of_block - 1), seed=0, allow_repeats=True)
    cells = arrange(layout, len(tuned), len(fillers))
    grid = compose(layout, cells, [picture.image for picture in tuned], [filler.picture for filler in fillers])
    manifest = describe(layout, cells, [Origin(picture.prompt, picture.seed, story.name) for picture in tuned],
                        [Origin(source=filler.path.name) for filler in fillers], seed=0)
    path = result.out / "pictures" / "grid.png"
    with atomic_file(path) as part:
        grid.save(part, "PNG")
    write_json(path.with_suffix(".json"), manifest.to_json())
    return path


def _save_all(result: StoryResult) -> None:
    """Save every picture under row and number, with sidecars; those of an earlier call are replaced."""
    for name, pictures in result.rows.items():
        for i, picture in enumerate(pictures):
            picture.save(result.out / "pictures" / picture_name(name, i))
    for name, scores in result.content_scores.items():
        write_text(result.out / "pictures" / f"scores {name}.csv", scores.csv())


def square(size: int) -> Resolution:
    """Centre crops of `size` pixels."""
    return Resolution(size, Crop.CENTER)
