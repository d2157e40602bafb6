"""What is where in a grid, as JSON beside it; and the grid taken apart again by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..errors import AtelierError
from .layout import Box, Layout, Place

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 1


@dataclass(frozen=True)
class Origin:
    """Where a picture came from, as far as is known."""

    prompt: str = ""
    seed: int | None = None
    source: str = ""
    """File name, data set, model: whatever names the place it came from."""
    score: float | None = None
    label: str = ""
    """What sets the picture apart from the others: "cfg 3", "10 steps"."""


@dataclass(frozen=True)
class Cell:
    """One filled cell of a grid."""

    box: Box
    block: int
    place: int
    unique: bool
    picture: int
    """Place of the picture among the unique ones, or among the fillers."""
    origin: Origin = Origin()


@dataclass(frozen=True)
class Manifest:
    """A grid, cell by cell, in the order of blocks and of cells in them."""

    width: int
    height: int
    cells: tuple[Cell, ...]
    seed: int | None = None
    """Seed of the placement; None if it was not left to chance."""

    def to_json(self) -> dict[str, Any]:
        """The manifest in JSON's types."""
        cells = []
        for cell in self.cells:
            values = asdict(cell)
            values["kind"] = "unique" if values.pop("unique") else "filler"
            cells.append(values)
        return {"version": VERSION, "width": self.width, "height": self.height, "seed": self.seed, "cells": cells}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Manifest:
        """The manifest that `to_json` wrote.

        Raises:
            AtelierError: this is no manifest, is of a later version, or places a cell outside its grid.
        """
        try:
            if value["version"] > VERSION:
                raise AtelierError(f"The manifest has version {value['version']}; this Atelier reads up to {VERSION}.",
                                   "Update Atelier.")
            manifest = cls(int(value["width"]), int(value["height"]), tuple(_cell(cell) for cell in value["cells"]),
                           value["seed"])
        except (KeyError, TypeError, ValueError) as error:
            raise AtelierError(f"This is no manifest of a grid ({type(error).__name__}: {error}).",
                               "Give the JSON that Block Grid made.") from error
        for cell in manifest.cells:
            left, top, right, bottom = cell.box.corners
            if not (0 <= left < right <= manifest.width and 0 <= top < bottom <= manifest.height):
                raise AtelierError(f"The manifest places a cell at {cell.box.corners}, outside its grid of "
                                   f"{manifest.width} × {manifest.height}.", "Give the JSON that Block Grid made.")
        return manifest


def describe(layout: Layout, places: Sequence[Place], uniques: Sequence[Origin], fillers: Sequence[Origin],
             seed: int | None = None) -> Manifest:
    """The manifest of the grid that `compose` draws from the same layout and places."""
    cells = tuple(
        Cell(layout.cell(place.block, place.place), place.block, place.place, place.unique, place.picture,
             (uniques if place.unique else fillers)[place.picture])
        for place in places)
    return Manifest(*layout.size, cells, seed)


def split(grid: Image, manifest: Manifest) -> tuple[list[Image], list[Image]]:
    """The unique pictures and the fillers of a grid, each in the order they were given: its very pixels.

    Raises:
        AtelierError: the grid has another size than the manifest's.
    """
    if grid.size != (manifest.width, manifest.height):
        raise AtelierError(f"The grid has {grid.width} × {grid.height} pixels, its manifest says {manifest.width} × "
                           f"{manifest.height}.", "Give the grid that the manifest was made with, at its full size.")
    cells = sorted(manifest.cells, key=lambda cell: cell.picture)
    return ([grid.crop(cell.box.corners) for cell in cells if cell.unique],
            [grid.crop(cell.box.corners) for cell in cells if not cell.unique])


def _cell(value: Mapping[str, Any]) -> Cell:
    kind = value["kind"]
    if kind not in ("unique", "filler"):
        raise ValueError(f"kind {kind!r}")
    x, y, width, height = (int(value["box"][side]) for side in ("x", "y", "width", "height"))
    return Cell(Box(x, y, width, height), value["block"], value["place"], kind == "unique", value["picture"],
                Origin(**value["origin"]))
