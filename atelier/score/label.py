"""Strips of text to put below a picture."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..errors import MissingPackage

Color = tuple[int, int, int]

_SMALLEST = 9
"""Font size in pixels below which nobody reads; text that still does not fit is shortened."""
_SHARPNESS = 4
"""Letters are drawn this much larger and shrunk: at their own size every letter's width is rounded to whole pixels, and
small words run into each other."""
_SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "segoeui.ttf", "arial.ttf",
                 "Arial Unicode.ttf", "NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc")


def strip(text: str, width: int, height: int, *, ink: Color = (32, 32, 32), paper: Color = (255, 255, 255),
          largest: int | None = None) -> Image.Image:
    """`text` centred on a strip of `width` × `height` pixels, in the largest size and the lines that fit.

    Text that does not fit is shortened with "…". Plain letters are drawn with Pillow's own font, so every machine
    draws the same; others with the system's font that has most of them, and what that lacks without accents.

    Args:
        largest: Font size in pixels not to exceed.
    """
    if not text.strip() or _room(width, height) < 1:
        return Image.new("RGB", (width, height), paper)
    name, words = _face(" ".join(text.split()))
    font, lines = _fit(name, words, _room(width, height), height, largest)
    line_height = _line_height(font)
    top = (height * _SHARPNESS - line_height * len(lines)) / 2
    picture = Image.new("RGB", (width * _SHARPNESS, height * _SHARPNESS), paper)
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(lines):
        draw.text((picture.width / 2, round(top + i * line_height)), line, fill=ink, font=font, anchor="ma")
    return picture.reduce(_SHARPNESS)


def font_size(text: str, width: int, height: int) -> int:
    """The font size in pixels that `strip` would choose: strips look alike if all get the least of theirs."""
    name, words = _face(" ".join(text.split()))
    font, _ = _fit(name, words, _room(width, height), height, None)
    return round(font.size / _SHARPNESS)


def _room(width: int, height: int) -> int:
    """Pixels of a strip's width that text may take."""
    return width - 2 * max(2, height // 8)


def _fit(name: str, text: str, room: int, height: int, largest: int | None
         ) -> tuple[ImageFont.FreeTypeFont, list[str]]:
    """The font, `_SHARPNESS` times as large as it will be seen, and the lines."""
    room, inner = room * _SHARPNESS, (height - 2 * (height // 12)) * _SHARPNESS
    for size in range(min(int(height / 1.6), largest or height), _SMALLEST - 1, -1):
        font = _font(name, size * _SHARPNESS)
        lines = _wrap(text, font, room)
        if len(lines) * _line_height(font) <= inner and all(font.getlength(line) <= room for line in lines):
            return font, lines
    font = _font(name, _SMALLEST * _SHARPNESS)
    count = max(inner // _line_height(font), 1)
    lines = _wrap(text, font, room)
    kept = lines if len(lines) <= count else [*lines[:count - 1], " ".join(lines[count - 1:])]
    return font, [_shorten(line, font, room) for line in kept]


def _wrap(text: str, font: ImageFont.FreeTypeFont, room: int) -> list[str]:
    """Lines filled word by word; a word wider than `room` gets a line of its own."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _shorten(line: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    if font.getlength(line) <= room:
        return line
    while line and font.getlength(line + "…") > room:
        line = line[:-1]
    return line.rstrip() + "…"


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    return sum(font.getmetrics())


@lru_cache(maxsize=256)
def _face(text: str) -> tuple[str, str]:
    """The name of a font ("" for Pillow's own) and the text as that font can draw it."""
    missing = {name: letters for name in ("", *_SYSTEM_FONTS) if (letters := _missing(name, text)) is not None}
    name = min(missing, key=lambda name: len(missing[name]))
    return name, "".join(_plain(c) if c in missing[name] else c for c in text)


def _plain(letter: str) -> str:
    """The letter without accents, or "?"."""
    base = "".join(c for c in unicodedata.normalize("NFKD", letter) if c.isascii())
    return base or "?"


def _missing(name: str, text: str) -> set[str] | None:
    """The letters of `text` that a font lacks; None if there is no such font on this system."""
    try:
        font = _font(name, 16)
    except OSError:
        return None
    box = _pixels(font, "\uffff")
    return {c for c in text if c != " " and _pixels(font, c) == box}


def _pixels(font: ImageFont.FreeTypeFont, letter: str) -> bytes:
    mask: Any = font.getmask(letter)
    return bytes(mask)


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise MissingPackage("Pillow", "Writing below pictures (with FreeType)")
    return font
