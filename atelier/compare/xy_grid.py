"""The result of an XY grid: the labelled picture, and the means of rows and columns."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import AtelierError
from ..pictures.labels import font_size, side_label, side_label_size, strip
from ..pictures.rgb import to_rgb
from .picture import CAPTION, GAP, HEADER, INK, LARGEST, PAPER, SIDE

if TYPE_CHECKING:
    from PIL.Image import Image

MEAN = 84
"""Pixels of the column with the rows' means."""
Cell = tuple[int, int]
"""Column and row."""


@dataclass(frozen=True, kw_only=True)
class ScoredGrid:
    """Labels of columns and rows, and the score of each cell.

    Raises:
        AtelierError: only some cells have a score.
    """

    x_name: str
    y_name: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    scores: Mapping[Cell, float]
    """Empty without scores."""
    scored_by: str = ""

    def __post_init__(self) -> None:
        if self.scores and len(self.scores) != len(self.columns) * len(self.rows):
            raise AtelierError(f"{len(self.scores)} of {len(self.columns) * len(self.rows)} cells have a score.",
                               "Score all of them, or none.")

    def column_means(self) -> list[float]:
        """Mean score of each column over its rows."""
        return [statistics.fmean(self.scores[i, j] for j in range(len(self.rows))) for i in range(len(self.columns))]

    def row_means(self) -> list[float]:
        """Mean score of each row over its columns."""
        return [statistics.fmean(self.scores[i, j] for i in range(len(self.columns))) for j in range(len(self.rows))]

    def table(self) -> str:
        """The scores with the means of rows and columns, and the best cell and means in words."""
        if not self.scores:
            return f"{len(self.columns)} × {len(self.rows)} cells, not scored"
        head = [f"{self.y_name} \\ {self.x_name}", *self.columns, "mean"]
        body = [[label, *(f"{self.scores[i, j]:.4f}" for i in range(len(self.columns))), f"{mean:.4f}"]
                for j, (label, mean) in enumerate(zip(self.rows, self.row_means(), strict=True))]
        means = self.column_means()
        foot = ["mean", *(f"{mean:.4f}" for mean in means), f"{statistics.fmean(means):.4f}"]
        best = max(self.scores, key=lambda cell: self.scores[cell])
        told = [f"best cell: {_both(self.columns[best[0]], self.rows[best[1]])}"]
        told += [f"best {name} on average: {labels[values.index(max(values))]}"
                 for name, labels, values in ((self.x_name, self.columns, means),
                                              (self.y_name, self.rows, self.row_means())) if len(labels) > 1]
        return "\n".join([*_aligned([head, *body, foot]), "", *told, "", self.scored_by])


def draw_xy(grid: ScoredGrid, pictures: Mapping[Cell, Image], cell: int = 0) -> Image:
    """The pictures in columns and rows with their labels; with scores, each below its picture, and the means at the
    right and below.

    Args:
        grid: Labels and scores.
        pictures: By cell; all of one size.
        cell: Longest side of a picture in pixels; 0 for the pictures' own, untouched.
    """
    from PIL import Image

    first = next(iter(pictures.values()))
    scale = 1.0 if cell == 0 else min(cell / max(first.size), 1.0)
    width, height = (max(round(side * scale), 1) for side in first.size)
    caption, mean = (CAPTION, MEAN) if grid.scores else (0, 0)
    step = height + caption + GAP
    foot = CAPTION + GAP if grid.scores else 0
    out = Image.new("RGB", (SIDE + len(grid.columns) * (width + GAP) + mean, HEADER + len(grid.rows) * step + foot),
                    PAPER)
    size = min(LARGEST, *(font_size(label, width, HEADER - GAP) for label in grid.columns))
    side = min(LARGEST, *(side_label_size(label, SIDE, height) for label in grid.rows))
    for i, label in enumerate(grid.columns):
        out.paste(strip(label, width, HEADER - GAP, largest=size), (SIDE + i * (width + GAP), GAP // 2))
    for j, label in enumerate(grid.rows):
        out.paste(side_label(label, SIDE, height, side), (0, HEADER + j * step))
    for (i, j), picture in pictures.items():
        left, top = SIDE + i * (width + GAP), HEADER + j * step
        rgb = to_rgb(picture)
        out.paste(rgb if rgb.size == (width, height) else rgb.resize((width, height), Image.Resampling.LANCZOS),
                  (left, top))
        if grid.scores:
            out.paste(strip(f"{grid.scores[i, j]:.4f}", width, caption, largest=13), (left, top + height))
    if grid.scores:
        right, below = SIDE + len(grid.columns) * (width + GAP), HEADER + len(grid.rows) * step
        for j, value in enumerate(grid.row_means()):
            out.paste(strip(f"mean {value:.4f}", mean, height, largest=13, ink=INK), (right, HEADER + j * step))
        for i, value in enumerate(grid.column_means()):
            out.paste(strip(f"mean {value:.4f}", width, CAPTION, largest=13, ink=INK),
                      (SIDE + i * (width + GAP), below))
    return out


def _both(column: str, row: str) -> str:
    return ", ".join(label for label in (column, row) if label)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    short = [[text if len(text) <= 32 else f"{text[:31]}…" for text in row] for row in rows]
    widths = [max(len(row[k]) for row in short) for k in range(len(short[0]))]
    return ["  ".join(text.ljust(width) if k == 0 else text.rjust(width)
                      for k, (text, width) in enumerate(zip(row, widths, strict=True))).rstrip() for row in short]
