"""Draw a grid from its layout and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from ..errors import AtelierError
from .layout import Cell, Layout

if TYPE_CHECKING:
    from PIL.Image import Image

Color = tuple[int, int, int]
WHITE: Color = (255, 255, 255)


class Fit(str, Enum):
    """How a picture of another shape fills its cell."""

    CROP = "crop"
    """Fill the cell and crop the picture at two sides."""
    PAD = "pad"
    """Show the whole picture and keep the background in the rest of the cell."""
    STRETCH = "stretch"
    """Fill the cell with the whole picture; its aspect ratio changes."""


def compose(layout: Layout, cells: Sequence[Cell], uniques: Sequence[Image], fillers: Sequence[Image], *,
            fit: Fit = Fit.CROP, background: Color = WHITE, captions: Mapping[int, str] | None = None) -> Image:
    """Draw the grid, mode RGB.

    A picture that has the size of a cell is copied as it is: cropping the grid at the cell's box gives it back bit for
    bit.

    Args:
        cells: Result of `layout.arrange` for these pictures.
        background: Colour of gaps, padding and caption strips.
        captions: Text below cells, by index into `cells`, all of one size; needs a `caption_height`.
    """
    from PIL import Image

    from ..pictures.labels import font_size, strip

    grid = Image.new("RGB", layout.size, background)
    texts = {index: text for index, text in (captions or {}).items() if text.strip()} if layout.caption_height else {}
    size = min((font_size(text, layout.cell_width, layout.caption_height) for text in texts.values()), default=None)
    for index, cell in enumerate(cells):
        picture = (uniques if cell.unique else fillers)[cell.picture]
        box = layout.cell(cell.block, cell.place)
        grid.paste(fitted(picture, (box.width, box.height), fit, background), (box.x, box.y))
        if index in texts:
            below = layout.caption(cell.block, cell.place)
            grid.paste(strip(texts[index], below.width, below.height, ink=_ink(background), paper=background,
                             largest=size), (below.x, below.y))
    return grid


def fitted(picture: Image, size: tuple[int, int], fit: Fit, background: Color = WHITE) -> Image:
    """`picture` as RGB of exactly `size` (width, height), by Lanczos resampling; untouched if it has that size.

    Transparent parts show white.
    """
    from PIL import Image, ImageOps

    from ..pictures.rgb import to_rgb

    picture = to_rgb(picture)
    if picture.size == size:
        return picture
    if fit is Fit.STRETCH:
        return picture.resize(size, Image.Resampling.LANCZOS)
    if fit is Fit.CROP:
        return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    return ImageOps.pad(picture, size, Image.Resampling.LANCZOS, color=background)


def parse_color(text: str) -> Color:
    """A colour from its name or hex digits, such as "white" or "#1a1a1a".

    Raises:
        AtelierError: the text names no colour.
    """
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text.strip())[:3]
    except ValueError as error:
        raise AtelierError(f"{text!r} is no colour.", "Write a name such as white, or hex digits such as #1a1a1a."
                           ) from error
    return red, green, blue


def _ink(background: Color) -> Color:
    """Dark on light and light on dark, by luma (ITU-R BT.601)."""
    red, green, blue = background
    return (32, 32, 32) if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else (235, 235, 235)
