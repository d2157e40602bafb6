"""Prior pictures: which are drawn, that they are the model's own, and that none is drawn twice or lost."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.checkpoints import write_sd1
from kit.pictures import write_pictures
from PIL import Image

from atelier.dataset.folder import FolderOptions, read_folder
from atelier.dataset.preview import summary
from atelier.dataset.types import Crop, Resolution, TrainingSet
from atelier.errors import AtelierError
from atelier.generate import GenerateRequest, generate
from atelier.models.open import open_model
from atelier.prior.draw import DiffusersDrawer, add_prior_pictures
from atelier.prior.options import PriorOptions, PriorPicture, prior_pictures, without_trigger
from atelier.progress import Interrupted, Progress
from atelier.sampling import SamplingOptions

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    folder = write_pictures(tmp_path_factory.mktemp("pictures"), [(80, 64), (64, 64), (64, 160)])
    return read_folder(folder, FolderOptions(captions="fixed", text="a photo of ohwx dog", trigger="ohwx",
                                             resolution=Resolution(128, Crop.BUCKET, 32)))


class Pencil:
    """Draws its number in grey, never asks whether to stop, and remembers what it drew."""

    def __init__(self, name: str = "pencil") -> None:
        self.identity = {"weights": name}
        self.drawn: list[PriorPicture] = []

    def draw(self, wanted: Sequence[PriorPicture], options: PriorOptions, progress: Progress
             ) -> Generator[Image.Image, None, None]:
        for picture in wanted:
            self.drawn.append(picture)
            yield Image.new("RGB", picture.size, (picture.seed,) * 3)


def test_they_are_what_the_model_generates_in_the_training_sizes(pictures: TrainingSet, tmp_path: Path) -> None:
    model = open_model(write_sd1(tmp_path / "tiny.safetensors", "tiny"))
    options = PriorOptions(count=10, prompt="a photo of a dog\n# a remark\na wolf", negative="a cat", seed=7, steps=2,
                           cfg=3)
    data = add_prior_pictures(pictures, options, DiffusersDrawer(model, CPU, torch.float32), tmp_path / "prior",
                              Progress())
    assert data.samples[:3] == pictures.samples
    drawn = data.samples[3:]
    assert len(drawn) == 10 and all(sample.prior for sample in drawn)
    prompts = ["a photo of a dog", "a wolf"] * 5
    assert [sample.captions for sample in drawn] == [(prompt,) for prompt in prompts]
    sizes = [(128, 128), (128, 128), (96, 192)] * 4
    assert [sample.size for sample in drawn] == sizes[:10]
    for numbers in ((0, 1), (5,), (9,)):
        request = GenerateRequest(prompts=tuple(prompts[number] for number in numbers), negative="a cat",
                                  seeds=tuple(7 + number for number in numbers),
                                  options=SamplingOptions(*sizes[numbers[0]], 2, 3.0))
        counted = Counted()
        alone = generate(model, request, device=CPU, dtype=torch.float32, progress=counted)
        assert counted.done == list(range(1, 2 * len(numbers) + 1)), "the bar goes on over the pictures"
        for number, picture in zip(numbers, alone, strict=True):
            assert np.array_equal(np.asarray(picture.image), np.asarray(Image.open(drawn[number].image))), number


class Counted(Progress):
    """Keeps how far the work said it was."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def advance(self, done: int, text: str = "") -> None:
        self.done.append(done)


class Twice(Progress):
    """Interrupts after the second picture."""

    asked = 0

    def check(self) -> None:
        self.asked += 1
        if self.asked == 2:
            raise Interrupted


def test_an_interrupted_drawing_goes_on_where_it_was(pictures: TrainingSet, tmp_path: Path) -> None:
    options, pencil, busy = PriorOptions(count=5), Pencil(), []

    def add(progress: Progress) -> TrainingSet:
        return add_prior_pictures(pictures, options, pencil, tmp_path, progress,
                                  exclusive=lambda: busy.append(True) or torch.no_grad())

    with pytest.raises(Interrupted):
        add(Twice())
    assert len(pencil.drawn) == len(list(tmp_path.iterdir())) == 2
    data = add(Progress())
    assert [picture.seed for picture in pencil.drawn] == [0, 1, 2, 3, 4]
    assert add(Progress()) == data and len(pencil.drawn) == 5 and len(busy) == 2, "none is missing: nothing is loaded"
    data.samples[4].image.write_bytes(b"damaged")
    assert add(Progress()) == data and pencil.drawn[5:] == [pencil.drawn[1]]


@pytest.mark.parametrize("change", [{"prompt": "a cat"}, {"negative": "x"}, {"seed": 9}, {"steps": 21}, {"cfg": 6.0}])
def test_other_options_draw_other_pictures(pictures: TrainingSet, tmp_path: Path, change: dict[str, Any]) -> None:
    pencil, options = Pencil(), PriorOptions(count=3, prompt="a dog")
    for each in (options, replace(options, **change)):
        add_prior_pictures(pictures, each, pencil, tmp_path, Progress())
    assert len(pencil.drawn) == 6
    other = Pencil("another model")
    add_prior_pictures(pictures, options, other, tmp_path, Progress())
    assert len(other.drawn) == 3


def test_more_of_them_draws_only_the_rest(pictures: TrainingSet, tmp_path: Path) -> None:
    pencil = Pencil()
    for count in (2, 4):
        data = add_prior_pictures(pictures, PriorOptions(count=count), pencil, tmp_path, Progress())
    assert [picture.seed for picture in pencil.drawn] == [0, 1, 2, 3]
    twice = add_prior_pictures(data, PriorOptions(count=1, prompt="a cat"), pencil, tmp_path, Progress())
    assert [sample.prior for sample in twice.samples] == [False] * 3 + [True] * 5


def test_the_captions_without_the_trigger_are_the_prompts(pictures: TrainingSet) -> None:
    assert {picture.prompt for picture in prior_pictures(pictures, PriorOptions())} == {"a photo of dog"}


@pytest.mark.parametrize(("caption", "left"), [
    ("ohwx, a dog, in snow", "a dog, in snow"), ("a photo of Ohwx dog", "a photo of dog"), ("a dog\nohwx", "a dog"),
    ("a dog, ohwx, in snow", "a dog, in snow"), ("ohwxy dog", "ohwxy dog"), ("ohwx", "")])
def test_the_trigger_leaves_nothing_behind(caption: str, left: str) -> None:
    assert without_trigger(caption, "ohwx") == left


def test_without_a_trigger_a_caption_stays_but_for_its_lines() -> None:
    assert without_trigger("a dog,,\n  in  snow,", "") == "a dog,, in snow,"


@pytest.mark.parametrize(("values", "said"), [
    ({"count": 0}, "count of the prior pictures is 0"), ({"seed": -1}, "seed"), ({"steps": 0}, "steps"),
    ({"cfg": float("nan")}, "cfg"), ({"prompt": "a\0b"}, "prompt of the prior pictures")])
def test_bad_options_are_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(AtelierError, match=said):
        PriorOptions(**values)


def test_nothing_to_draw_is_said(pictures: TrainingSet) -> None:
    bare = replace(pictures, samples=tuple(replace(sample, captions=("ohwx",)) for sample in pictures.samples))
    with pytest.raises(AtelierError, match="Give a prompt"):
        prior_pictures(bare, PriorOptions())
    alone = replace(pictures, samples=tuple(replace(sample, prior=True) for sample in pictures.samples))
    with pytest.raises(AtelierError, match="prior pictures alone"):
        prior_pictures(alone, PriorOptions())


def test_samples_of_another_resolution_keep_it(pictures: TrainingSet, tmp_path: Path) -> None:
    own = Resolution(64)
    data = replace(pictures, samples=(pictures.samples[0], replace(pictures.samples[1], resolution=own)))
    drawn = add_prior_pictures(data, PriorOptions(count=4), Pencil(), tmp_path, Progress()).samples[2:]
    assert [sample.resolution for sample in drawn] == [None, own] * 2
    assert [sample.size for sample in drawn] == [(128, 128), (64, 64)] * 2
    assert summary(replace(data, samples=drawn)) == "64x64: 2, 128x128: 2 | 4 prior pictures"
