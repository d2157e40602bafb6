"""The demo's pictures: they match their captions, and held-out triples stay held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kit.demo_pixels import look
from PIL import Image

from atelier.demo import drawing
from atelier.demo.drawing import Spec, caption, draw, held_out_prompts, random_specs
from atelier.errors import AtelierError


def test_another_reader_sees_what_was_asked_for() -> None:
    for spec in random_specs(120, seed=3):
        seen = look(draw(spec))
        assert (seen.shape, seen.color, seen.background) == (spec.shape, spec.color, spec.background), spec


def test_the_reader_sees_nothing_in_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    assert look(Image.fromarray(noise)).shape == "nothing"


def test_equal_specs_draw_equal_pictures_and_seeds_differ() -> None:
    spec = Spec(shape="star", color="red", background="white")
    assert np.array_equal(draw(spec), draw(spec))
    assert not np.array_equal(draw(spec), draw(replace(spec, seed=1)))
    assert draw(spec, size=64).size == (64, 64)


def test_held_out_triples_are_a_tenth_and_never_among_the_others() -> None:
    held = {(s.color, s.shape, s.background) for s in drawing.specs(held_out=True)}
    shown = {(s.color, s.shape, s.background) for s in drawing.specs(held_out=False)}
    assert not held & shown
    assert len(held) / len(held | shown) == pytest.approx(0.1, abs=0.01)
    assert {(s.color, s.shape, s.background) for s in random_specs(2000, seed=1)} <= shown


def test_held_out_prompts_cover_every_word() -> None:
    prompts = held_out_prompts(64)
    assert prompts == held_out_prompts(64) and len({words for _, words in prompts}) > 50
    for field, words in (("shape", drawing.SHAPES), ("color", drawing.COLORS), ("background", drawing.BACKGROUNDS)):
        assert {getattr(spec, field) for spec, _ in prompts} == set(words)
    for spec, words in prompts:
        assert words == caption(spec) and spec.held_out


def test_pencil_pictures_are_paper_with_dark_lines_and_some_colour() -> None:
    rgb = np.asarray(draw(Spec(shape="square", color="red", background="blue"), "pencil")).astype(int)
    assert look(rgb).background == "white"  # the paper, not the caption's blue,
    assert np.ptp(rgb[:3, :3].mean(axis=(0, 1))) > 25  # and cream
    assert (rgb.max(axis=2) < 110).mean() > 0.02
    assert ((rgb[..., 0] - rgb[..., 1]) > 100).mean() > 0.05


@pytest.mark.parametrize(("field", "value"), [("shape", "cube"), ("color", "grey"), ("background", "red"),
                                              ("size", "huge"), ("position", "above")])
def test_unknown_words_are_named(field: str, value: str) -> None:
    with pytest.raises(AtelierError, match=f"{field} is '{value}'"):
        replace(Spec(shape="star", color="red", background="white"), **{field: value})


def test_a_shape_of_its_background_is_refused() -> None:
    with pytest.raises(AtelierError, match="color and background are both 'white'"):
        Spec(shape="star", color="white", background="white")


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(AtelierError, match="style is 'oil'"):
        draw(Spec(shape="star", color="red", background="white"), "oil")  # pyright: ignore[reportArgumentType]
