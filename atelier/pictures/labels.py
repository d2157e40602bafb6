"""Text labels below and beside pictures."""

from __future__ import annotations

from bisect import bisect_right

from PIL import Image, ImageDraw, ImageFont

from .fonts import font_for, load_font

Color = tuple[int, int, int]

_SMALLEST = 9
"""Font size in pixels below which nobody reads; text that still does not fit is shortened."""
_SHARPNESS = 4
"""Letters are drawn this much larger and shrunk: at their own size every letter's width is rounded to whole pixels, and
small words run into each other."""


def strip(text: str, width: int, height: int, *, ink: Color = (32, 32, 32), paper: Color = (255, 255, 255),
          largest: int | None = None) -> Image.Image:
    """`text` centred on a strip of `width` × `height` pixels, in the largest size and the lines that fit.

    Text that does not fit is shortened with "…". Plain letters are drawn with Pillow's own font, so every machine
    draws the same; others with a font of the system (`pictures.fonts`).

    Args:
        largest: Font size in pixels not to exceed.
    """
    if not text.strip() or _room(width, height) < 1:
        return Image.new("RGB", (width, height), paper)
    name, words = font_for(" ".join(text.split()))
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
    name, words = font_for(" ".join(text.split()))
    font, _ = _fit(name, words, _room(width, height), height, None)
    return round(font.size / _SHARPNESS)


def _room(width: int, height: int) -> int:
    """Pixels of a strip's width that text may take."""
    return width - 2 * max(2, height // 8)


def _fit(name: str, text: str, room: int, height: int, largest: int | None
         ) -> tuple[ImageFont.FreeTypeFont, list[str]]:
    """The font, `_SHARPNESS` times as large as it will be seen, and the lines."""
    room, inner = room * _SHARPNESS, (height - 2 * (height // 12)) * _SHARPNESS
    smallest = load_font(name, _SMALLEST * _SHARPNESS)
    count = max(inner // _line_height(smallest), 1)
    text = _cut(text, smallest, room * count)
    for size in range(min(int(height / 1.6), largest or height), _SMALLEST - 1, -1):
        font = load_font(name, size * _SHARPNESS)
        most = inner // _line_height(font)
        lines = _wrap(text, font, room, most)
        if len(lines) <= most and all(font.getlength(line) <= room for line in lines):
            return font, lines
    lines = _wrap(text, smallest, room, count)
    kept = lines if len(lines) <= count else [*lines[:count - 1], " ".join(lines[count - 1:])]
    return smallest, [_shorten(line, smallest, room) for line in kept]


def _cut(text: str, font: ImageFont.FreeTypeFont, length: int) -> str:
    """`text` up to what would be too long even if all its letters were as narrow as the narrowest.

    Fitting takes time by the length of the text, and prompts may be as long as a book.
    """
    narrowest = max(min((font.getlength(letter) for letter in set(text)), default=1), 1)
    return text[:2 * int(length / narrowest) + 2]  # twice: pairs of letters may stand closer than each alone


def _wrap(text: str, font: ImageFont.FreeTypeFont, room: int, most: int) -> list[str]:
    """Lines filled word by word; a word wider than `room` gets a line of its own.

    What does not go into `most` lines stands in one more, however wide.
    """
    lines: list[str] = []
    words = text.split(" ")
    for place, word in enumerate(words):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= room:
            lines[-1] = longer
        elif len(lines) == most:
            return [*lines, " ".join(words[place:])]
        else:
            lines.append(word)
    return lines


def _shorten(line: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    if font.getlength(line) <= room:
        return line
    kept = bisect_right(range(1, len(line)), room, key=lambda end: font.getlength(line[:end] + "…"))
    return line[:kept].rstrip() + "…"


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    return sum(font.getmetrics())


_SIDE_HEIGHT = 112
"""Height in pixels of a side label's text; a taller strip would have wider margins and less room for words."""


def side_label(text: str, width: int, height: int, largest: int) -> Image.Image:
    """`text` in the middle of a white area of `width` × `height` pixels, in letters of at most `largest` pixels."""
    out = Image.new("RGB", (width, height), (255, 255, 255))
    words = strip(text, width, min(height, _SIDE_HEIGHT), largest=largest)
    out.paste(words, (0, (height - words.height) // 2))
    return out


def side_label_size(text: str, width: int, height: int) -> int:
    """The font size in pixels that `side_label` would choose without a limit."""
    return font_size(text, width, min(height, _SIDE_HEIGHT))
