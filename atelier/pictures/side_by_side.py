"""Several pictures as one."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

COLUMNS = 4
GAP = 4
"""Pixels between two pictures."""


def side_by_side(pictures: Sequence[Image.Image], columns: int = COLUMNS) -> Image.Image:
    """The pictures in rows of at most `columns`, on white, each in a cell as large as the largest; a single one is
    itself."""
    if len(pictures) == 1:
        return pictures[0]
    width, height = (max(picture.size[side] for picture in pictures) for side in (0, 1))
    across = min(columns, len(pictures))
    down = -(-len(pictures) // across)
    out = Image.new("RGB", (across * (width + GAP) - GAP, down * (height + GAP) - GAP), "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, across)
        out.paste(picture.convert("RGB"), (column * (width + GAP), row * (height + GAP)))
    return out
