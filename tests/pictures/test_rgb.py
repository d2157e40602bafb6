"""Pictures with transparency look and score as on white, in every place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atelier.grid.compose import Fit, fitted
from atelier.pictures.decode import read_picture
from atelier.pictures.rgb import to_rgb
from atelier.score.preprocess import pixel_values


def cut_out(mode: str) -> Image.Image:
    """Red where it is opaque; the colour below the transparent left half is black, as many editors leave it."""
    levels = np.zeros((8, 8, 4), np.uint8)
    levels[:, 4:] = (200, 30, 40, 255)
    picture = Image.fromarray(levels)
    if mode == "P":
        palette = Image.new("P", (8, 8))
        palette.putpalette([0, 0, 0, 200, 30, 40])
        palette.paste(1, (4, 0, 8, 8))
        palette.info["transparency"] = 0
        return palette
    return picture.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_what_was_cut_away_is_white(mode: str, tmp_path: Path) -> None:
    expected = np.full((8, 8, 3), 255, np.uint8)
    expected[:, 4:] = (200, 30, 40)
    picture = cut_out(mode)
    assert np.array_equal(to_rgb(picture), expected)
    assert np.array_equal(fitted(picture, (8, 8), Fit.CROP), expected)
    assert np.array_equal(pixel_values([picture], 8), pixel_values([Image.fromarray(expected)], 8))
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png"), expected)


def test_half_transparent_levels_are_mixed_with_white() -> None:
    assert to_rgb(Image.new("RGBA", (1, 1), (100, 0, 0, 128))).getpixel((0, 0)) == (177, 127, 127)
    assert to_rgb(Image.new("LA", (1, 1), (100, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_deep_levels_are_scaled_and_opaque_ones_kept() -> None:
    assert to_rgb(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0)) == (255, 255, 255)
    assert to_rgb(Image.new("F", (1, 1), 0.5)).getpixel((0, 0)) == (128, 128, 128)
    levels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(to_rgb(Image.fromarray(levels)), levels)
