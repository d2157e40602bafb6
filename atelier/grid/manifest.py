"""A JSON description of a grid: where each picture lies and where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from reprlib import repr as short
from typing import Any

from ..errors import AtelierError
from ..json_files import parse_json
from ..limits import DEFAULT, check_values
from .layout import Box, Cell, Layout

VERSION = 1
_DO = "Connect the manifest of Block Grid."


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


def parse_manifest(text: str) -> dict[str, Any]:
    """Read a manifest as `Manifest.to_json` writes it.

    Raises:
        AtelierError: it is no manifest; the message names the entry and its value.
    """
    try:
        manifest = parse_json(text)
        check_values(manifest, DEFAULT)
    except ValueError as error:
        raise AtelierError(f"The manifest is not readable JSON: {error}.", _DO) from error
    if not isinstance(manifest, dict):
        raise AtelierError(f"The manifest is {short(manifest)}, not a table.", _DO)
    for name, least in (("version", 1), ("width", 1), ("height", 1)):
        _require_whole(manifest, name, "The manifest", least)
    if manifest.get("seed") is not None:
        _require_whole(manifest, "seed", "The manifest", -2**63)
    cells = manifest.get("cells")
    if not isinstance(cells, list):
        raise AtelierError(f"The manifest: cells is {short(cells)}, not a list.", _DO)
    for number, cell in enumerate(cells):
        where = f"Cell {number} of the manifest"
        if not isinstance(cell, dict) or not isinstance(cell.get("box"), dict):
            raise AtelierError(f"{where} is {short(cell)}, without a box.", _DO)
        for name in ("x", "y", "width", "height"):
            _require_whole(cell["box"], name, where, 0)
        for name in ("block", "place", "picture"):
            _require_whole(cell, name, where, 0)
    return manifest


def _require_whole(values: Mapping[str, Any], name: str, where: str, least: int) -> None:
    value = values.get(name)
    if type(value) is not int or not least <= value < 2**64:
        raise AtelierError(f"{where}: {name} is {short(value)}, not a whole number.", _DO)


def describe(layout: Layout, cells: Sequence[Cell], uniques: Sequence[Origin], fillers: Sequence[Origin],
             seed: int | None = None) -> Manifest:
    """The manifest of the grid that `compose` draws from the same layout and cells."""
    described = tuple(
        ManifestCell(box=layout.cell(cell.block, cell.place), block=cell.block, place=cell.place, unique=cell.unique,
                     picture=cell.picture, origin=(uniques if cell.unique else fillers)[cell.picture])
        for cell in cells)
    return Manifest(*layout.size, described, seed)
