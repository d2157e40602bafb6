"""Scores as values: definitions, statistics, tables, choosing, pictures with their score below."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from kit.clip_models import random_pictures
from PIL import ImageFont

from atelier.errors import AtelierError
from atelier.pictures.labels import strip
from atelier.score.annotate import annotate
from atelier.score.crop import ClipCrop
from atelier.score.definitions import Definition
from atelier.score.result import Score, Scores


def scores(*values: float, text: str = "a cat", **more: str) -> Scores:
    items = tuple(Score(picture=i, text=text, cosine=value, value=value, tokens=2, cut=0)
                  for i, value in enumerate(values))
    return Scores(items=items, model="ViT-B-32", definition=Definition.COSINE, crop=ClipCrop.CENTER, **more)


@pytest.mark.parametrize(("definition", "cosine", "value"), [
    (Definition.COSINE, 0.31, 0.31), (Definition.COSINE, -0.2, -0.2),
    (Definition.HESSEL, 0.31, 0.775), (Definition.HESSEL, -0.2, 0.0),
    (Definition.TORCHMETRICS, 0.31, 31.0), (Definition.TORCHMETRICS, -0.2, 0.0),
])
def test_definitions(definition: Definition, cosine: float, value: float) -> None:
    assert definition(cosine) == pytest.approx(value, abs=1e-12)


def test_mean_and_deviation_by_hand() -> None:
    three = scores(0.2, 0.3, 0.4)
    assert three.mean == pytest.approx(0.3)
    assert three.std == pytest.approx((0.02 / 3) ** 0.5)
    assert scores(0.25).std == 0


def test_the_mean_is_that_of_the_values_not_of_the_cosines() -> None:
    given = scores(0.5, 0.7)
    other = replace(given, items=tuple(replace(item, cosine=item.value / 2.5) for item in given.items))
    assert (other.mean, other.std) == (given.mean, given.std)


def test_best_are_in_order_and_earlier_ones_win_ties() -> None:
    given = scores(0.1, 0.4, 0.2, 0.4)
    assert (given.best(1), given.best(3), given.best(4)) == ((1,), (1, 3, 2), (1, 3, 2, 0))


@pytest.mark.parametrize("k", [0, -1, 3])
def test_best_refuses_other_counts_than_there_are(k: int) -> None:
    with pytest.raises(AtelierError, match=f"k is {k}.*between 1 and 2"):
        scores(0.1, 0.2).best(k)


def test_chosen_are_numbered_anew() -> None:
    chosen = scores(0.1, 0.4, 0.2).chosen((1, 2))
    assert [(s.picture, s.value) for s in chosen.items] == [(0, 0.4), (1, 0.2)]
    assert chosen.model == "ViT-B-32"


def test_no_scores_are_refused() -> None:
    with pytest.raises(AtelierError, match="no scores"):
        scores()


def test_table_names_everything_needed_to_read_it() -> None:
    table = scores(0.31, 0.29, text="a cat wearing  neon-glasses", note="activation assumed").table().splitlines()
    assert table[0].split() == ["#", "score", "tokens", "cut", "text"]
    assert table[1].split(maxsplit=4) == ["1", "0.3100", "2", "0", "a cat wearing neon-glasses"]
    assert table[3] == "mean 0.3000  std 0.0100  n 2"
    assert table[4:] == ["ViT-B-32, cosine, crop center", "activation assumed"]


def test_csv_survives_commas_quotes_and_lines() -> None:
    text = 'a "cat", grey\non a mat'
    rows = list(csv.DictReader(io.StringIO(scores(0.125, text=text).csv())))
    assert len(rows) == 1
    assert rows[0]["text"] == text
    assert float(rows[0]["score"]) == 0.125
    assert (rows[0]["model"], rows[0]["definition"], rows[0]["crop"]) == ("ViT-B-32", "cosine", "center")


def test_annotated_pictures_keep_their_pixels_and_gain_a_readable_strip() -> None:
    pictures = random_pictures([(256, 128), (64, 200)])
    annotated = annotate(pictures, scores(0.31, 0.29))
    for before, after in zip(pictures, annotated, strict=True):
        assert after.width == before.width
        assert np.array_equal(np.asarray(after)[:before.height], np.asarray(before))
        bar = np.asarray(after)[before.height:]
        assert bar.shape[0] >= 24
        assert bar.min() < 100 < 250 < bar.max()
    assert not np.array_equal(np.asarray(strip("0.3100  a cat", 256, 24)), np.asarray(strip("0.3200  a cat", 256, 24)))


def test_a_strip_keeps_its_text_off_its_edges() -> None:
    for text in ("a cat", "a cat wearing neon-glasses on a red carpet at a festival of films " * 3, "x" * 300):
        bar = np.asarray(strip(text, 139, 34))
        assert bar.shape == (34, 139, 3)
        assert bar[:, :2].min() == 255 and bar[:, -2:].min() == 255, text
        assert bar[0].min() == 255 and bar[-1].min() == 255, text
        assert bar.min() < 128
    tall = np.asarray(strip("a cat wearing neon-glasses on a red carpet at a festival of films " * 9, 256, 64))
    assert tall[:5].min() == 255 and tall[-5:].min() == 255 and tall.min() < 128


@pytest.mark.parametrize("text", ["a neon cat in the rain, cinematic ", "masterpiece,solo"])
def test_a_text_of_any_length_takes_the_work_of_what_fits(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = 0
    getlength = ImageFont.FreeTypeFont.getlength

    def counted(font: ImageFont.FreeTypeFont, text: str) -> float:
        nonlocal measured
        measured += len(text)
        return getlength(font, text)

    monkeypatch.setattr(ImageFont.FreeTypeFont, "getlength", counted)
    drawn, work = [], []
    for copies in (100, 200):
        measured = 0
        drawn.append(np.asarray(strip(text * copies, 200, 40)))
        work.append(measured)
    assert np.array_equal(*drawn) and drawn[0].min() < 128
    assert work[0] == work[1]


def test_a_shortened_line_takes_all_that_fits() -> None:
    text = "a cat wearing neon-glasses on a red carpet at a festival of films"
    font = ImageFont.load_default(36)
    assert isinstance(font, ImageFont.FreeTypeFont)
    end = max(end for end in range(len(text)) if font.getlength(text[:end] + "…") <= (160 - 2 * 2) * 4)
    shortened = strip(text[:end].rstrip() + "…", 160, 15, largest=9)
    assert end > 20 and np.array_equal(np.asarray(strip(text, 160, 15, largest=9)), np.asarray(shortened))


def test_small_letters_stand_as_the_font_spaces_them() -> None:
    """Rounding each letter's width to whole pixels would run words into each other."""
    text = "a cat wearing neon-glasses, impressionist style"
    columns = np.flatnonzero(np.asarray(strip(text, 256, 15, largest=9)).min(axis=(0, 2)) < 200)
    font = ImageFont.load_default(900)
    assert isinstance(font, ImageFont.FreeTypeFont)
    left, _, right, _ = font.getbbox(text)
    assert columns[-1] - columns[0] + 1 == pytest.approx((right - left) / 100, abs=4)


def test_letters_no_font_has_are_not_drawn_as_boxes() -> None:
    # U+10FFFF is in no font; it must look like the question mark that stands for it.
    assert np.array_equal(np.asarray(strip("a \U0010ffff b", 100, 20)), np.asarray(strip("a ? b", 100, 20)))
