"""The result of `make demo`: the style is learnt, and content and the base look are preserved."""

from __future__ import annotations

import csv
import faulthandler
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kit.demo_pencil import is_pencil, look_pencil
from kit.demo_pixels import look
from PIL import Image

from atelier.demo.drawing import LEARNT_POSITIONS, draw, held_out_prompts, random_specs
from atelier.demo.result import StoryResult
from atelier.demo.stories import pencil_story
from atelier.demo.story import run_story
from atelier.generate import GenerateRequest, generate
from atelier.models.open import open_model
from atelier.progress import Progress

SPECS = [spec for spec, _ in held_out_prompts(8)]
"""What the story's prompts ask for."""


def test_the_reader_of_sketches_can_read() -> None:
    specs = [replace(spec, position=LEARNT_POSITIONS[0]) for spec in random_specs(60, 5)]
    seen = [look_pencil(draw(spec, "pencil")) for spec in specs]
    assert sum((s.shape, s.color) == (spec.shape, spec.color) for s, spec in zip(seen, specs, strict=True)) >= 55
    assert all(is_pencil(draw(spec, "pencil")) for spec in specs)
    assert not any(is_pencil(draw(spec)) for spec in specs)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> StoryResult:
    """The shipped story.

    On a busy processor without bfloat16 its training alone can take twenty minutes:
    more than pytest's limit for a test.
    """
    faulthandler.dump_traceback_later(3600, exit=True)
    out = tmp_path_factory.mktemp("the demo")
    return run_story(pencil_story(out, Progress()), out, device="cpu")


def part(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


@pytest.mark.slow
def test_the_style_is_learnt(result: StoryResult) -> None:
    assert part([is_pencil(picture.image) for picture in result.rows["lora"]]) >= 0.8
    assert part([is_pencil(picture.image) for picture in result.rows["base"]]) <= 0.1


@pytest.mark.slow
def test_what_is_drawn_stays_right(result: StoryResult) -> None:
    seen = [look_pencil(picture.image) for picture in result.rows["lora"]]
    # Eight of them: enough to tell it from chance, by which one shape in six is right.
    assert part([s.shape == spec.shape for s, spec in zip(seen, SPECS, strict=True)]) >= 0.6
    assert part([s.color == spec.color for s, spec in zip(seen, SPECS, strict=True)]) >= 0.75


@pytest.mark.slow
def test_without_the_styles_words_the_look_stays_the_models_own(result: StoryResult) -> None:
    unasked = [picture.image for picture in result.rows["lora, unasked"]]
    assert part([not is_pencil(picture) and look(picture).shape == spec.shape
                 for picture, spec in zip(unasked, SPECS, strict=True)]) >= 0.7


@pytest.mark.slow
def test_strength_zero_is_the_base_exactly(result: StoryResult) -> None:
    story = result.story
    model = open_model(result.out / "diffusers" / story.model.stem)
    base, zero = (generate(model, GenerateRequest(
        prompts=story.prompts[:2], seeds=(100, 101), options=replace(story.sampling, steps=2), lora=lora, strength=0,
        batch_size=2), device=torch.device("cpu"), dtype=torch.float32, progress=Progress())
        for lora in (None, result.training.lora))
    for mine, plain in zip(zero, base, strict=True):
        assert np.array_equal(np.asarray(mine.image), np.asarray(plain.image))


@pytest.mark.slow
def test_early_stopping_stopped_and_the_best_is_kept(result: StoryResult) -> None:
    outcome = result.training.result
    assert outcome.status == "stopped early"
    assert outcome.step < outcome.total
    best_step, best = 0, float("inf")
    for step, loss in outcome.history.validation:  # the lowest loss may improve by less than `min_delta`
        if loss < best - result.story.request.validation.min_delta:
            best_step, best = step, loss
    assert (outcome.best_step, outcome.weights) == (best_step, "best.safetensors")
    assert outcome.best_loss == best
    assert outcome.best_step < outcome.step


@pytest.mark.slow
def test_scores_tell_the_styles_apart(result: StoryResult) -> None:
    style = {name: np.mean([item.style for item in scores.items]) for name, scores in result.content_scores.items()}
    assert style["lora"] > style["base"] + 0.2
    with (result.out / "pictures" / "scores lora.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == [item.value for item in result.content_scores["lora"].items]


@pytest.mark.slow
def test_the_page_shows_every_picture_and_number(result: StoryResult) -> None:
    page = (result.out / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'src="([^"]+)"', page)
    assert len(links) == 3 * len(SPECS) + 2
    assert all((result.out / link).is_file() for link in links)
    assert f"{result.content_scores['lora'].items[3].value:.3f}" in page
    assert result.grid is not None
    with Image.open(result.grid) as grid:
        assert np.asarray(grid).std() > 10


@pytest.mark.slow
def test_a_second_call_finds_what_is_done(result: StoryResult) -> None:
    files = {path: path.stat().st_mtime_ns for path in (result.out / "loras").iterdir()}
    story = replace(result.story, prompts=result.story.prompts[:1], contents=result.story.contents[:1], scoring=None,
                    sampling=replace(result.story.sampling, steps=1))
    again = run_story(story, result.out, device="cpu")
    assert again.training.reused
    assert {path: path.stat().st_mtime_ns for path in (result.out / "loras").iterdir()} == files
    assert Path(again.training.lora) == result.training.lora
