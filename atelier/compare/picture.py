"""Draw a comparison: all pictures in a labelled grid, and the mean scores as bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..pictures.labels import font_size, side_label, side_label_size, strip
from ..pictures.rgb import to_rgb
from .run import Comparison

if TYPE_CHECKING:
    from PIL.Image import Image

Color = tuple[int, int, int]

PAPER: Color = (255, 255, 255)
INK: Color = (32, 32, 32)
BAR, FIRST, TRACK, WHISKER = (150, 178, 214), (47, 111, 208), (240, 242, 245), (70, 70, 70)
GAP, HEADER, SIDE, CAPTION = 6, 48, 170, 22
"""Pixels: between cells, above the columns, left of the rows, below a scored picture."""
BAR_HEIGHT, NAMES, VALUES = 34, 240, 300
"""Pixels of the chart: a bar, the names at its left, mean and verdict at its right."""
LARGEST = 17


def draw_grid(comparison: Comparison, pictures: Mapping[tuple[int, int, int], Image], cell: int = 0) -> Image:
    """One column a model, one row a prompt and seed; each picture with its score below.

    Labels are wrapped and scaled to fit; what still does not fit ends in "…".

    Args:
        pictures: By (model, prompt, seed); all of one size.
        cell: Longest side of a picture in pixels; 0 for the pictures' own, untouched.
    """
    from PIL import Image

    rows = [(p, seed) for p in range(len(comparison.prompts)) for seed in comparison.seeds]
    first = next(iter(pictures.values()))
    scale = 1.0 if cell == 0 else min(cell / max(first.size), 1.0)
    width, height = (max(round(side * scale), 1) for side in first.size)
    caption = CAPTION if comparison.scored else 0
    step = height + caption + GAP
    out = Image.new("RGB", (SIDE + len(comparison.models) * (width + GAP), HEADER + len(rows) * step), PAPER)
    size = min(LARGEST, *(font_size(label, width, HEADER - GAP) for label in comparison.models))
    for m, label in enumerate(comparison.models):
        out.paste(strip(label, width, HEADER - GAP, largest=size), (SIDE + m * (width + GAP), GAP // 2))
    names = [f"{comparison.prompts[p]} · seed {seed}" for p, seed in rows]
    side = min(LARGEST, *(side_label_size(name, SIDE, height) for name in names))
    for row, (p, seed) in enumerate(rows):
        top = HEADER + row * step
        out.paste(side_label(names[row], SIDE, height, side), (0, top))
        for m in range(len(comparison.models)):
            left = SIDE + m * (width + GAP)
            picture = to_rgb(pictures[m, p, seed])
            sized = picture if picture.size == (width, height) else picture.resize((width, height),
                                                                                  Image.Resampling.LANCZOS)
            out.paste(sized, (left, top))
            score = comparison.image(m, p, seed).score
            if score is not None:
                out.paste(strip(f"{score:.4f}", width, caption, largest=13), (left, top + height))
    return out


def draw_bars(comparison: Comparison, width: int = 960) -> Image:
    """Mean scores as bars from 0, best first, with one standard deviation to either side and the significance of
    the difference. Without scores: median seconds per picture.
    """
    from PIL import Image, ImageDraw

    ranking = comparison.ranking()
    if ranking:
        bars = [(s.model, s.mean, s.std, f"{s.mean:.4f} ± {s.std:.4f}, {s.verdict}") for s in ranking]
        title = f"CLIP score, mean and standard deviation · {comparison.scored_by}"
    else:
        times = [(m, comparison.seconds(m)[0]) for m in range(len(comparison.models))]
        bars = [(m, seconds or 0.0, 0.0, "–" if seconds is None else f"{seconds:.2f} s") for m, seconds in times]
        title = "Seconds per picture, median"
    longest = max((value + spread for _, value, spread, _ in bars), default=0.0) or 1.0
    room = width - NAMES - VALUES - 2 * GAP
    out = Image.new("RGB", (width, HEADER + len(bars) * (BAR_HEIGHT + GAP) + GAP), PAPER)
    out.paste(strip(title, width, HEADER - GAP, largest=LARGEST), (0, GAP // 2))
    draw = ImageDraw.Draw(out)
    for row, (model, value, spread, text) in enumerate(bars):
        top = HEADER + row * (BAR_HEIGHT + GAP)
        middle = top + BAR_HEIGHT // 2
        out.paste(strip(comparison.models[model], NAMES - GAP, BAR_HEIGHT, largest=14), (0, top))
        draw.rectangle((NAMES, top, NAMES + room, top + BAR_HEIGHT - 1), fill=TRACK)
        end, low, high = (NAMES + round(room * max(x, 0.0) / longest) for x in (value, value - spread, value + spread))
        if end > NAMES:
            draw.rectangle((NAMES, top, end, top + BAR_HEIGHT - 1), fill=FIRST if row == 0 else BAR)
        if spread:
            draw.line((low, middle, high, middle), fill=WHISKER, width=2)
            for x in (low, high):
                draw.line((x, middle - 6, x, middle + 6), fill=WHISKER, width=2)
        out.paste(strip(text, VALUES, BAR_HEIGHT, largest=14), (NAMES + room + 2 * GAP, top))
    return out
