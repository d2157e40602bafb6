"""Thumbnails of many pictures in one, which the editor's review cuts apart again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from ..pictures.decode import read_picture

CELL = 128
"""Side of a thumbnail in pixels."""
COLUMNS = 10
MOST = 600
"""Thumbnails in a sheet at most."""
_PAPER = "#16181d"


def review_sheet(pictures: Sequence[Path]) -> Image.Image:
    """The first `MOST` pictures, row by row in `COLUMNS` columns of square cells, each whole and centred, RGB.

    Raises:
        AtelierError: a picture can no longer be read.
    """
    shown = pictures[:MOST]
    rows = max(1, -(-len(shown) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * CELL), _PAPER)
    for index, path in enumerate(shown):
        row, column = divmod(index, COLUMNS)
        cell = ImageOps.pad(read_picture(path), (CELL, CELL), color=_PAPER)
        sheet.paste(cell, (column * CELL, row * CELL))
    return sheet
