"""Draw tokens as rows of boxes, coloured by weight, with tokens beyond CLIP's 75 struck out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..pictures.labels import strip
from .tokens import Token, TokenTable

if TYPE_CHECKING:
    from PIL.Image import Image

Color = tuple[int, int, int]

HEIGHT, GAP, LETTER, PADDING, FONT = 30, 4, 10, 16, 15
PAPER: Color = (255, 255, 255)
NEUTRAL: Color = (236, 236, 236)
HEAVY: Color = (255, 140, 66)
LIGHT: Color = (96, 165, 250)
BEYOND: Color = (200, 30, 30)


def draw_tokens(table: TokenTable, width: int = 768) -> Image:
    """A picture `width` pixels wide, as tall as the rows of boxes need, with the count in its last line.

    Weights above 1 are orange, below 1 blue, the stronger the further from 1 (full at 1.5 and 0.5). Tokens beyond
    the first 75 are struck out in red.
    """
    from PIL import Image, ImageDraw

    boxes = _box_positions(table.tokens, width)
    bottom = max((y for _, y, _ in boxes), default=GAP - HEIGHT) + HEIGHT + GAP
    picture = Image.new("RGB", (width, bottom + HEIGHT), PAPER)
    draw = ImageDraw.Draw(picture)
    for (x, y, wide), token in zip(boxes, table.tokens, strict=True):
        picture.paste(strip(token.text, wide, HEIGHT, paper=color_of(token.weight), largest=FONT), (x, y))
        if token.chunk:
            draw.rectangle((x, y, x + wide - 1, y + HEIGHT - 1), outline=BEYOND, width=2)
            draw.line((x, y + HEIGHT // 2, x + wide - 1, y + HEIGHT // 2), fill=BEYOND, width=1)
    head = table.table().partition("\n")[0]
    picture.paste(strip(head, width, HEIGHT, largest=FONT), (0, bottom))
    return picture


def color_of(weight: float) -> Color:
    """The colour of a weight: grey at 1, to orange at 1.5 and more, to blue at 0.5 and less."""
    target, share = (HEAVY if weight > 1 else LIGHT), min(abs(weight - 1) / 0.5, 1.0)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(NEUTRAL, target, strict=True))
    return red, green, blue


def _box_positions(tokens: tuple[Token, ...], width: int) -> list[tuple[int, int, int]]:
    """Each token's box as (left, top, width), row by row."""
    boxes: list[tuple[int, int, int]] = []
    x = y = GAP
    for token in tokens:
        wide = min(len(token.text) * LETTER + PADDING, width - 2 * GAP)
        if x + wide > width - GAP and x > GAP:
            x, y = GAP, y + HEIGHT + GAP
        boxes.append((x, y, wide))
        x += wide + GAP
    return boxes
