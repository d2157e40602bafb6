"""The geometry of a block grid and the assignment of pictures to its cells.

A grid has rows and columns of *blocks*; a block has b × b *cells*, of which one shows a unique picture and the others
fillers. Pixels are counted from the top left corner of the grid.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from enum import Enum

from ..errors import AtelierError


@dataclass(frozen=True)
class Gaps:
    """Empty pixels around cells.

    Raises:
        AtelierError: a gap is negative; the message names it.
    """

    inside: int = 4
    """Between the cells of a block."""
    between: int = 10
    """Between blocks."""
    margin: int = 15
    """Around the whole grid."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise AtelierError(f"gap {field.name} is {getattr(self, field.name)}.", "Choose 0 or more pixels.")


PRESETS = {"4 px inside, 10 px between, 15 px margin": Gaps(), "even 8 px": Gaps(8, 8, 8), "none": Gaps(0, 0, 0)}
"""Gaps by name."""


class Placement(str, Enum):
    """Which cell of a block shows its unique picture."""

    RANDOM = "random"
    """Any, drawn for each block from the seed."""
    TOP_LEFT = "top left"
    TOP_RIGHT = "top right"
    BOTTOM_LEFT = "bottom left"
    BOTTOM_RIGHT = "bottom right"
    CENTER = "center"
    """The middle; in an even block the cell to its lower right."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), the last two exclusive: what Pillow calls a box."""
        return self.x, self.y, self.x + self.width, self.y + self.height


MOST_PIXELS = 2 ** 29
"""Maximum pixels of a whole grid: 1.6 GB to compose and 6.4 GB as a float tensor. 64 blocks of 2 × 2 cells of 1024
pixels have half of that."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The shape of a block grid.

    Raises:
        AtelierError: a value is out of range; the message names the field. Or the grid has more than `MOST_PIXELS`.
    """

    rows: int = 4
    """Rows of blocks."""
    columns: int = 4
    """Columns of blocks."""
    block: int = 2
    """Cells along a side of a block. 1 makes a plain grid without fillers."""
    cell_width: int = 256
    cell_height: int = 256
    caption_height: int = 0
    """Height of the strip below each cell; 0 for none."""
    gaps: Gaps = Gaps()

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "block", "cell_width", "cell_height"):
            if getattr(self, name) < 1:
                raise AtelierError(f"{name} is {getattr(self, name)}.", "Choose 1 or more.")
        if self.caption_height < 0:
            raise AtelierError(f"caption_height is {self.caption_height}.", "Choose 0 or more pixels.")
        width, height = self.size
        if width * height > MOST_PIXELS:
            raise AtelierError(f"A grid of {width} × {height} pixels is too large: {MOST_PIXELS / 1e6:.0f} million are "
                               "the most.", "Choose smaller cells, fewer pictures or smaller gaps.")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the whole grid in pixels."""
        right, bottom = self._corner(self.rows - 1, self.columns - 1, self.block - 1, self.block - 1)
        return (right + self.cell_width + self.gaps.margin,
                bottom + self.cell_height + self.caption_height + self.gaps.margin)

    @property
    def cells_of_block(self) -> int:
        """Cells in one block; all but one show fillers."""
        return self.block * self.block

    def cell(self, block: int, place: int) -> Box:
        """The box of a picture: the `place`-th cell of the `block`-th block, both counted row by row."""
        x, y = self._corner(*divmod(block, self.columns), *divmod(place, self.block))
        return Box(x, y, self.cell_width, self.cell_height)

    def caption(self, block: int, place: int) -> Box:
        """The strip below that cell."""
        cell = self.cell(block, place)
        return Box(cell.x, cell.y + cell.height, cell.width, self.caption_height)

    def _corner(self, block_row: int, block_column: int, row: int, column: int) -> tuple[int, int]:
        return (_along(block_column, column, self.cell_width, self.block, self.gaps),
                _along(block_row, row, self.cell_height + self.caption_height, self.block, self.gaps))


@dataclass(frozen=True)
class Cell:
    """A cell of the grid and the picture in it."""

    block: int
    place: int
    """Cell within the block, counted row by row."""
    unique: bool
    picture: int
    """Index of the picture among the unique ones, or among the fillers."""


def arrange(layout: Layout, uniques: int, fillers: int, placement: Placement = Placement.RANDOM, seed: int = 0
            ) -> tuple[Cell, ...]:
    """Assign pictures to cells: block by block, each block's cells row by row.

    Unique pictures take the blocks in order, one each; fillers take the other cells in order. Blocks beyond the last
    unique picture stay empty. The same arguments give the same cells on every machine.

    Raises:
        AtelierError: no pictures, more unique pictures than blocks, or not exactly the fillers their blocks need.
    """
    blocks = layout.rows * layout.columns
    if not 1 <= uniques <= blocks:
        raise AtelierError(f"There are {uniques} unique pictures for {layout.rows} × {layout.columns} blocks.",
                           f"Give between 1 and {blocks}, or change rows and columns.")
    needed = uniques * (layout.cells_of_block - 1)
    if fillers != needed:
        raise AtelierError(f"There are {fillers} fillers; {uniques} blocks of {layout.block} × {layout.block} cells "
                           f"with one unique picture each need {needed}.", f"Give {needed} fillers.")
    rng = random.Random(seed)
    cells: list[Cell] = []
    filler = 0
    for block in range(uniques):
        own = _unique_cell(layout.block, placement, rng)
        for place in range(layout.cells_of_block):
            cells.append(Cell(block, place, place == own, block if place == own else filler))
            filler += place != own
    return tuple(cells)


def rows_for(uniques: int, columns: int = 0) -> tuple[int, int]:
    """(rows, columns) of blocks that hold this many unique pictures: as square as possible if `columns` is 0.

    Raises:
        AtelierError: there are no pictures, or `columns` is negative.
    """
    if uniques < 1 or columns < 0:
        raise AtelierError(f"{uniques} unique pictures in {columns} columns make no grid.",
                           "Give at least one picture, and 0 or more columns.")
    if columns == 0:
        columns = next(c for c in range(1, uniques + 1) if c * c >= uniques)
    return -(-uniques // columns), columns


def _along(block: int, cell: int, size: int, block_cells: int, gaps: Gaps) -> int:
    """Start of a cell along one axis."""
    block_size = block_cells * size + (block_cells - 1) * gaps.inside
    return gaps.margin + block * (block_size + gaps.between) + cell * (size + gaps.inside)


def _unique_cell(block: int, placement: Placement, rng: random.Random) -> int:
    last = block - 1
    if placement is Placement.RANDOM:
        return rng.randrange(block * block)
    row, column = {Placement.TOP_LEFT: (0, 0), Placement.TOP_RIGHT: (0, last), Placement.BOTTOM_LEFT: (last, 0),
                   Placement.BOTTOM_RIGHT: (last, last), Placement.CENTER: (block // 2, block // 2)}[placement]
    return row * block + column
