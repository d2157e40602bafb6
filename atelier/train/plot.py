"""The loss curve of a run as a picture, drawn with Pillow: the host brings no plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from ..pictures.fonts import font_for, load_font
from .history import History, smoothed
from .run_folder import RoundScore

INK, GRID, RAW, TRAIN, VALIDATION, BEST = "#24292f", "#e3e6ea", "#c4d7f2", "#2f6fd0", "#d97706", "#15803d"
FIDELITY, LIKENESS = "#7c3aed", "#0f766e"
SCORES = 220
"""Height of the scores' part in pixels."""
_SMALL = 13
"""Size of the small letters in pixels."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 40, 46, 46  # margins in pixels

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axes:
    """A rectangle of pixels and the range of values it shows."""

    width: int
    height: int
    x_max: float
    y_min: float
    y_max: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel of a value."""
        across = self.width - _LEFT - _RIGHT
        down = self.height - _TOP - _BOTTOM
        share = (y - self.y_min) / (self.y_max - self.y_min)
        return _LEFT + across * x / self.x_max, _TOP + down * (1 - min(1.0, max(0.0, share)))


def loss_plot(history: History, *, title: str, scores: Mapping[int, RoundScore] | None = None, best_step: int = 0,
              steps_per_epoch: int = 0, width: int = 960, height: int = 540) -> Image.Image:
    """Draw training loss (raw and smoothed), validation loss or epoch means, and the best validation; below them, on
    the same steps, the scores of sample pictures where there are any.

    Args:
        history: What to draw; an empty one gives empty axes.
        scores: Of each round of sample pictures, by step; step 0 is the base model's.
        title: Stands above the plot.
        best_step: Step of the best validation; 0: none is marked.
        steps_per_epoch: Writes a second scale in epochs below the steps; 0: none.
        width: Pixels.
        height: Pixels of the losses; scores have SCORES more.
    """
    raw = [(float(i + 1), value) for i, value in enumerate(history.losses)]
    train = [(x, value) for (x, _), value in zip(raw, smoothed(history.losses), strict=True)]
    validations = [(float(s), v) for s, v in (history.validation or history.epochs)]
    axes = _axes(train, validations, width, height)
    scale = 2  # drawn at twice the size and reduced: Pillow's lines have no smooth edges of their own
    large = Image.new("RGB", (width * scale, height * scale), "white")
    pen = ImageDraw.Draw(large)
    for y in _ticks(axes.y_min, axes.y_max):
        _line(pen, axes, [(0, y), (axes.x_max, y)], GRID, scale)
    _line(pen, axes, _thin(raw, width), RAW, scale)
    _line(pen, axes, _thin(train, width), TRAIN, 2 * scale)
    _line(pen, axes, validations, VALIDATION, 2 * scale)
    for point in validations:
        _dot(pen, axes, point, VALIDATION, 4, scale)
    best = next((point for point in validations if point[0] == best_step), None)
    if best:
        _dot(pen, axes, best, BEST, 7, scale)
    picture = large.resize((width, height), Image.Resampling.LANCZOS)
    _labels(picture, axes, title, best, validations_name="validation" if history.validation else "epoch mean",
            validations=bool(validations), steps_per_epoch=steps_per_epoch)
    if not scores:
        return picture
    whole = Image.new("RGB", (width, height + SCORES), "white")
    whole.paste(picture)
    whole.paste(_score_plot(scores, axes.x_max, width), (0, height))
    return whole


def _score_plot(scores: Mapping[int, RoundScore], x_max: float, width: int) -> Image.Image:
    curves = [("fidelity", FIDELITY, [(float(step), score.fidelity) for step, score in sorted(scores.items())]),
              ("likeness", LIKENESS, [(float(step), score.likeness) for step, score in sorted(scores.items())])]
    axes = _axes([], [point for _, _, points in curves for point in points], width, SCORES)
    axes = replace(axes, x_max=max(x_max, axes.x_max))
    scale = 2
    large = Image.new("RGB", (width * scale, SCORES * scale), "white")
    pen = ImageDraw.Draw(large)
    for y in _ticks(axes.y_min, axes.y_max):
        _line(pen, axes, [(0, y), (axes.x_max, y)], GRID, scale)
    for _, colour, points in curves:
        _line(pen, axes, points, colour, 2 * scale)
        for point in points:
            _dot(pen, axes, point, colour, 4, scale)
    picture = large.resize((width, SCORES), Image.Resampling.LANCZOS)
    _scale_left(picture, axes)
    _legend(picture, [(name, colour) for name, colour, _ in curves])
    return picture


def _axes(train: Points, validations: Points, width: int, height: int) -> Axes:
    values = [y for _, y in (*train, *validations) if math.isfinite(y)] or [0.0, 1.0]
    low, high = min(values), max(values)
    flat = high - low <= 1e-9 * abs(high)  # as after a single step, whose average differs from it by rounding
    room = max(abs(high), 1e-3) * 0.1 if flat else (high - low) * 0.12
    last = max([x for x, _ in (*train, *validations)], default=1.0)
    return Axes(width, height, max(last, 1.0), max(0.0, low - room), high + room)


def _labels(picture: Image.Image, axes: Axes, title: str, best: tuple[float, float] | None, *, validations_name: str,
            validations: bool, steps_per_epoch: int) -> None:
    pen, small = ImageDraw.Draw(picture), load_font("", _SMALL)
    face, title = font_for(title)
    pen.text((_LEFT, 12), title, INK, load_font(face, 18))
    _scale_left(picture, axes)
    bottom = axes.place(0, axes.y_min)[1] + 6
    for x in filter(float.is_integer, _ticks(0, axes.x_max)):  # there is no half of a step
        epoch = f"\nepoch {x / steps_per_epoch:.3g}" if steps_per_epoch else ""
        pen.multiline_text((axes.place(x, 0)[0], bottom), f"{x:.0f}{epoch}", INK, small, anchor="ma", align="center")
    entries = [("training", TRAIN)] + ([(validations_name, VALIDATION)] if validations else [])
    if best:
        entries.append((f"best {best[1]:.4f} at step {best[0]:.0f}", BEST))
    _legend(picture, entries)


def _scale_left(picture: Image.Image, axes: Axes) -> None:
    pen, small = ImageDraw.Draw(picture), load_font("", _SMALL)
    for y in _ticks(axes.y_min, axes.y_max):
        pen.text((_LEFT - 8, axes.place(0, y)[1]), f"{y:.3g}", INK, small, anchor="rm")


def _legend(picture: Image.Image, entries: Sequence[tuple[str, str]]) -> None:
    pen, small = ImageDraw.Draw(picture), load_font("", _SMALL)
    right = picture.width - _RIGHT
    for text, colour in reversed(entries):
        right -= pen.textlength(text, small)
        pen.text((right, 18), text, INK, small)
        pen.rectangle((right - 18, 22, right - 6, 28), colour)
        right -= 34


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers within the range."""
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)))
    while (high - low) / step < 4:
        step /= 2
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _thin(points: Points, most: int) -> Points:
    stride = max(1, len(points) // most)
    return points[::stride]


def _line(pen: ImageDraw.ImageDraw, axes: Axes, points: Points, colour: str, width: int) -> None:
    scale = pen.im.size[0] / axes.width
    pixels = [(x * scale, y * scale) for x, y in (axes.place(*point) for point in points)]
    if len(pixels) > 1:
        pen.line(pixels, colour, width, joint="curve")


def _dot(pen: ImageDraw.ImageDraw, axes: Axes, point: tuple[float, float], colour: str, radius: int, scale: int
         ) -> None:
    x, y = axes.place(*point)
    pen.ellipse([(x - radius) * scale, (y - radius) * scale, (x + radius) * scale, (y + radius) * scale], colour)
