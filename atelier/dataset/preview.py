"""A contact sheet of a training set: crops, training sizes and captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..pictures.decode import read_picture
from ..pictures.fonts import font_for, load_font
from .prepare import fit_sample
from .sizing import Geometry, Size, fit, target_size
from .types import Resolution, Sample, TrainingSet

Font = ImageFont.FreeTypeFont

CELL = 224
"""Side of a thumbnail's field, in pixels."""

_LINES = 2
_TEXT = 13
_GAP = 10
_PAPER, _INK, _SOFT, _FRAME, _MARK = "#16181d", "#e8e6e1", "#9aa0aa", "#f2b134", "#b3261e"


def size_counts(data: TrainingSet) -> dict[Size, int]:
    """How many pictures have each training size, the most frequent size first."""
    counts = Counter(target_size(sample.size, data.resolution_of(sample)) for sample in data.samples)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def summary(data: TrainingSet) -> str:
    """The training set in one line: pictures, uses per epoch, sizes, and counts of enlarged and skipped pictures."""
    prior = sum(sample.prior for sample in data.samples)
    uses = sum(sample.repeats for sample in data.samples if not sample.prior)
    small = sum(max(fit(sample.size, data.resolution_of(sample)).scale) > 1 for sample in data.samples)
    sizes = ", ".join(f"{width}x{height}: {count}" for (width, height), count in size_counts(data).items())
    own = len(data.samples) - prior
    parts = [*[f"{own} pictures, {uses} uses an epoch"] * bool(own), sizes]
    parts += [f"{prior} prior pictures"] * bool(prior) + [f"{small} enlarged"] * bool(small)
    parts += [f"{len(data.skipped)} skipped"] * bool(data.skipped) + ["also mirrored"] * data.flip
    return " | ".join(parts)


def contact_sheet(data: TrainingSet, *, limit: int = 24, columns: int = 6,
                  marks: Mapping[Path, str] | None = None) -> Image.Image:
    """Thumbnails of the first `limit` pictures, RGB; those with a text in `marks`, by file, come first and bear it.

    Each shows the whole picture with a frame around the crop and the rest darkened, or a padded picture with the frame
    of its canvas; below it are training size, repeats and caption. The first line of the sheet is `summary`.

    Raises:
        AtelierError: a picture can no longer be read.
    """
    marks = marks or {}
    shown = sorted(data.samples, key=lambda sample: sample.image not in marks)[:limit]
    columns = max(1, min(columns, len(shown)))
    rows = -(-len(shown) // columns)
    head, step = _TEXT + 2 * _GAP, CELL + (_LINES + 1) * (_TEXT + 4) + _GAP
    sheet = Image.new("RGB", (columns * (CELL + _GAP) + _GAP, head + rows * step + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    left_out = len(data.samples) - len(shown)
    title = summary(data) + (f" | {left_out} more not shown" if left_out else "")
    title, font = _readable(title)
    pen.text((_GAP, _GAP), _cut(title, sheet.width - 2 * _GAP, font), _INK, font)
    for index, sample in enumerate(shown):
        row, column = divmod(index, columns)
        x, y = _GAP + column * (CELL + _GAP), head + row * step
        picture = _framed(sample, data.resolution_of(sample))
        sheet.paste(picture, (x + (CELL - picture.width) // 2, y + (CELL - picture.height) // 2))
        _label(pen, (x, y + CELL + 4), sample, target_size(sample.size, data.resolution_of(sample)))
        if sample.image in marks:
            _mark(pen, (x, y), marks[sample.image])
    return sheet


def _framed(sample: Sample, resolution: Resolution) -> Image.Image:
    """The picture, no larger than a cell, with the untrained part darkened."""
    picture = read_picture(sample.image)
    geometry = fit_sample(picture, resolution)
    return _on_bars(picture, geometry) if geometry.padded else _cut_away(picture, geometry)


def _cut_away(picture: Image.Image, geometry: Geometry) -> Image.Image:
    thumb = picture.copy()
    thumb.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    across, down = thumb.width / picture.width, thumb.height / picture.height
    left, top, right, bottom = geometry.box
    # The crop of a picture 500 times as wide as high is less than a pixel wide here.
    x, y = min(round(left * across), thumb.width - 1), min(round(top * down), thumb.height - 1)
    box = x, y, max(x + 1, round(right * across)), max(y + 1, round(bottom * down))
    dark = thumb.point(lambda value: value * 0.3)
    dark.paste(thumb.crop(box), box[:2])
    ImageDraw.Draw(dark).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=_FRAME, width=2)
    return dark


def _on_bars(picture: Image.Image, geometry: Geometry) -> Image.Image:
    canvas = Image.new("RGB", geometry.target, "black")
    left, top, right, bottom = geometry.inner
    canvas.paste(picture.resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
    canvas.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
    ImageDraw.Draw(canvas).rectangle((0, 0, canvas.width - 1, canvas.height - 1), outline=_FRAME, width=2)
    return canvas


def _label(pen: ImageDraw.ImageDraw, at: tuple[int, int], sample: Sample, size: Size) -> None:
    facts = [f"{size[0]}x{size[1]}"]
    facts += [f"{sample.repeats} uses"] * (sample.repeats > 1) + ["prior"] * sample.prior
    facts += ["mask"] * (sample.mask is not None)
    facts += [f"{len(sample.captions)} captions"] * (len(sample.captions) > 1)
    pen.text(at, " | ".join(facts), _SOFT, load_font("", _TEXT))
    caption, font = _readable(sample.captions[0][:_LINES * CELL])
    for line, text in enumerate(_wrapped(caption, font), 1):
        pen.text((at[0], at[1] + line * (_TEXT + 4)), text, _INK, font)


def _mark(pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str) -> None:
    """A band with `text` across the top of a cell."""
    words, font = _readable(text)
    pen.rectangle((*at, at[0] + CELL - 1, at[1] + _TEXT + 8), fill=_MARK)
    pen.text((at[0] + 4, at[1] + 3), _cut(words, CELL - 8, font), "white", font)


def _readable(text: str) -> tuple[str, Font]:
    """The text as a font of this machine can draw it, and the font."""
    name, words = font_for(text)
    return words, load_font(name, _TEXT)


def _wrapped(text: str, font: Font) -> list[str]:
    # No glyph is narrower than a pixel, so text beyond this never fits; measuring it would take quadratic time.
    lines, rest = [], text[:_LINES * CELL].split()
    while rest and len(lines) < _LINES - 1:
        count = max((n for n in range(1, len(rest) + 1) if font.getlength(" ".join(rest[:n])) <= CELL), default=1)
        lines.append(_cut(" ".join(rest[:count]), CELL, font))
        rest = rest[count:]
    return [*lines, _cut(" ".join(rest), CELL, font)] if rest else lines


def _cut(text: str, width: int, font: Font) -> str:
    """`text`, shortened with three dots so that it is at most `width` pixels wide."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
