"""A JSON description of a grid: where each picture lies and where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .layout import Box, Cell, Layout

VERSION = 1


@dataclass(frozen=True)
class Origin:
    """The known origin of a picture."""

    prompt: str = ""
    seed: int | None = None
    source: str = ""
    """File name, data set or model it came from."""
    score: float | None = None
    label: str = ""
    """How the picture differs from the others: "cfg 3", "10 steps"."""


@dataclass(frozen=True, kw_only=True)
class ManifestCell:
    """One filled cell of a grid."""

    box: Box
    block: int
    place: int
    unique: bool
    picture: int
    """Index of the picture among the unique ones, or among the fillers."""
    origin: Origin = Origin()


@dataclass(frozen=True)
class Manifest:
    """The filled cells of a grid, ordered by block and by cell within the block."""

    width: int
    height: int
    cells: tuple[ManifestCell, ...]
    seed: int | None = None
    """Seed of the random placement; None if the placement was fixed."""

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON types. Cropping the grid at each cell's `box` gives back the pictures."""
        cells = []
        for cell in self.cells:
            values = asdict(cell)
            values["kind"] = "unique" if values.pop("unique") else "filler"
            cells.append(values)
        return {"version": VERSION, "width": self.width, "height": self.height, "seed": self.seed, "cells": cells}


def describe(layout: Layout, cells: Sequence[Cell], uniques: Sequence[Origin], fillers: Sequence[Origin],
             seed: int | None = None) -> Manifest:
    """The manifest of the grid that `compose` draws from the same layout and cells."""
    described = tuple(
        ManifestCell(box=layout.cell(cell.block, cell.place), block=cell.block, place=cell.place, unique=cell.unique,
                     picture=cell.picture, origin=(uniques if cell.unique else fillers)[cell.picture])
        for cell in cells)
    return Manifest(*layout.size, described, seed)
