"""The contact sheet: crops, padding and captions, checked by pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atelier.dataset.folder import CaptionSource, FolderOptions, read_folder
from atelier.dataset.preview import CELL, contact_sheet, size_counts, summary
from atelier.dataset.types import Crop, Resolution, TrainingSet


def white_pictures(folder: Path, sizes: list[tuple[int, int]], crop: Crop) -> TrainingSet:
    for number, size in enumerate(sizes):
        Image.new("RGB", size, "white").save(folder / f"{number}.png")
    return read_folder(folder, FolderOptions(captions=CaptionSource.FIXED, text="a white wall 白, nothing " * 9,
                                             resolution=Resolution(512, crop), flip=True))


def bright(sheet: Image.Image) -> np.ndarray:
    """Where the picture is shown at full brightness, in the first cell."""
    return (np.asarray(sheet)[43:, 10:10 + CELL] == 255).all(axis=-1)[:CELL - 10]


def test_the_cropped_part_is_dark(tmp_path: Path) -> None:
    data = white_pictures(tmp_path, [(1200, 600)], Crop.CENTER)
    columns = np.flatnonzero(bright(contact_sheet(data)).any(axis=0))
    assert columns[0] == pytest.approx(CELL / 4, abs=3)
    assert columns[-1] == pytest.approx(CELL * 3 / 4, abs=3)


@pytest.mark.parametrize("crop", Crop)
@pytest.mark.parametrize("size", [(2000, 4), (4, 2000), (5000, 1)])
def test_very_thin_pictures_are_shown(tmp_path: Path, size: tuple[int, int], crop: Crop) -> None:
    """Their crop is less than a pixel wide on the sheet and still gets a frame."""
    sheet = contact_sheet(white_pictures(tmp_path, [size], crop))
    frame = (np.asarray(sheet)[43:43 + CELL] == (0xF2, 0xB1, 0x34)).all(axis=-1)
    assert frame.any()


def test_long_captions_are_cut_in_the_time_of_what_is_shown(tmp_path: Path) -> None:
    data = white_pictures(tmp_path, [(600, 600)], Crop.CENTER)
    sheets = [np.asarray(contact_sheet(replace(data, samples=tuple(
        replace(sample, captions=("a cat in the snow " * times,)) for sample in data.samples))))
        for times in (2, 100, 30_000)]
    assert np.array_equal(sheets[1], sheets[2]) and not np.array_equal(sheets[0], sheets[1])


def test_a_padded_picture_is_shown_whole(tmp_path: Path) -> None:
    data = white_pictures(tmp_path, [(1200, 600)], Crop.PAD)
    columns = np.flatnonzero(bright(contact_sheet(data)).any(axis=0))
    assert columns[0] <= 3 and columns[-1] >= CELL - 4


def test_the_sheet_counts_and_stays_small(tmp_path: Path) -> None:
    data = white_pictures(tmp_path, [(600, 600)] * 3 + [(900, 600)] * 5 + [(300, 300)], Crop.BUCKET)
    assert size_counts(data) == {(640, 384): 5, (512, 512): 4}
    text = summary(data)
    assert "9 pictures" in text and "640x384: 5" in text and "1 enlarged" in text and "mirrored" in text
    sheet = contact_sheet(data, limit=4, columns=2)
    whole = contact_sheet(data, columns=2)
    assert sheet.mode == "RGB" and sheet.width == whole.width and sheet.height < whole.height < 5 * 320
