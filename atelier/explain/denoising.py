"""Draw denoising steps: a labelled strip and an animation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import AtelierError
from ..files import atomic_file
from ..pictures.labels import font_size, side_label, side_label_size, strip

if TYPE_CHECKING:
    from PIL.Image import Image

PAPER = (255, 255, 255)
GAP, HEADER, LINE, ROW_NAME, ROW_FONT = 6, 44, 20, 112, 14
"""Pixels: gap between cells, header height, header line height, width of row names, font size of row names."""
LABEL = 28
"""Height of the label below an animation's pictures."""
LAST_FRAME = 4
"""The finished picture is shown this many times as long as each step."""
ROWS = {"prediction": "clean picture, predicted", "noisy": "noisy latent", "guidance": "guidance difference"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a sampler, in pictures."""

    number: int
    """From 1."""
    sigma: float
    """Standard deviation of the noise in the latent before the step, in units of the clean latent's."""
    timestep: float | None
    """The UNet's timestep for this sigma: 999 … 0 for Stable Diffusion; None if unknown."""
    prediction: Image
    """The clean picture that the UNet predicts at this step."""
    noisy: Image | None = None
    """The UNet's noisy input latent, decoded."""
    guidance: np.ndarray | None = None
    """`[h, w]` float: Euclidean length, over channels, of the noise predicted with the prompt minus that with the
    negative prompt, in units of the noise. Guidance multiplies it by cfg. None without guidance (cfg 1)."""

    @property
    def labels(self) -> tuple[str, str]:
        """Two lines: the step, and its sigma and timestep."""
        time = "" if self.timestep is None else f" · t {self.timestep:.0f}"
        return f"step {self.number}", f"σ {self.sigma:.3g}{time}"


def chosen_steps(total: int, every: int, most: int = 8) -> tuple[int, ...]:
    """Which of `total` steps to show, from 0: every n-th and the last; with `every` 0 at most `most`, evenly spread.

    Raises:
        AtelierError: a number is out of range.
    """
    if every < 0 or most < 2:
        raise AtelierError(f"every is {every} and most {most}.", "Choose every from 0 and most from 2.")
    if every == 0:
        count = min(total, most)
        return tuple(round(i * (total - 1) / max(count - 1, 1)) for i in range(count))
    return tuple(sorted({*range(0, total, every), total - 1}))


def draw_strip(steps: Sequence[Step], result: Image, *, rows: Sequence[str] = tuple(ROWS), cell: int = 0,
               columns: int = 9) -> Image:
    """All steps side by side, left to right, with what each row shows at the left and the finished picture at the end.

    Args:
        rows: Which of "prediction", "noisy", "guidance", from top to bottom. Rows without any picture are left out.
        cell: Longest side of a picture in pixels; 0 for the pictures' own, untouched.
        columns: Pictures side by side before a new band begins.
    """
    from PIL import Image

    shown = [row for row in rows if any(_has(step, row) for step in steps)]
    width, height = _cell_size(result, cell)
    brightest = max((float(step.guidance.max()) for step in steps if step.guidance is not None), default=0.0)
    pictures: dict[str, Callable[[Step], Image | None]] = {
        "prediction": lambda step: step.prediction, "noisy": lambda step: step.noisy,
        "guidance": lambda step: None if step.guidance is None else heat(step.guidance, brightest)}
    count = len(steps) + 1
    columns = min(columns, count)
    bands = -(-count // columns)
    band_height = HEADER + len(shown) * (height + GAP) + GAP
    out = Image.new("RGB", (ROW_NAME + columns * (width + GAP) + GAP, bands * band_height), PAPER)
    headers = [*(step.labels for step in steps), ("result", "")]
    size = min(font_size(line, width, LINE) for header in headers for line in header if line)
    for position, header in enumerate(headers):
        band, column = divmod(position, columns)
        left, top = ROW_NAME + column * (width + GAP), band * band_height
        for number, line in enumerate(header):
            out.paste(strip(line, width, LINE, largest=size), (left, top + GAP // 2 + number * LINE))
        for index, row in enumerate(shown):
            picture = result if position == len(steps) and index == 0 else (
                pictures[row](steps[position]) if position < len(steps) else None)
            if picture is not None:
                kind = Image.Resampling.NEAREST if row == "guidance" else Image.Resampling.LANCZOS
                sized = picture if picture.size == (width, height) else picture.resize((width, height), kind)
                out.paste(sized, (left, top + HEADER + index * (height + GAP)))
    named = min((side_label_size(ROWS[row], ROW_NAME, height) for row in shown), default=ROW_FONT)
    for band in range(bands):
        for index, row in enumerate(shown):
            label = side_label(ROWS[row], ROW_NAME, height, min(named, ROW_FONT))
            out.paste(label, (0, band * band_height + HEADER + index * (height + GAP)))
    return out


def save_animation(path: Path, steps: Sequence[Step], result: Image, milliseconds: int) -> None:
    """Write the predictions, and the finished picture last and longest, as an endless animated WebP.

    Raises:
        AtelierError: the file cannot be written, or `milliseconds` is below 1.
    """
    from PIL import Image

    if milliseconds < 1:
        raise AtelierError(f"milliseconds is {milliseconds}.", "Choose at least 1.")
    labelled = []
    for picture, label in [*((step.prediction, " · ".join(step.labels)) for step in steps), (result, "result")]:
        frame = Image.new("RGB", (picture.width, picture.height + LABEL), PAPER)
        frame.paste(picture, (0, 0))
        frame.paste(strip(label, picture.width, LABEL, largest=16), (0, picture.height))
        labelled.append(frame)
    times = [milliseconds] * len(steps) + [milliseconds * LAST_FRAME]
    with atomic_file(path) as part:
        labelled[0].save(part, format="WEBP", save_all=True, append_images=labelled[1:], duration=times, loop=0,
                         quality=85, method=4)


def heat(values: np.ndarray, brightest: float) -> Image:
    """Numbers `[h, w]` from 0 to `brightest` as colours from black over red and yellow to white."""
    from PIL import Image

    share = np.clip(values / brightest, 0, 1) if brightest > 0 else np.zeros_like(values)
    channels = [np.clip(share * 3 - shift, 0, 1) for shift in range(3)]
    return Image.fromarray((np.stack(channels, axis=-1) * 255).round().astype(np.uint8))


def _has(step: Step, row: str) -> bool:
    return {"prediction": True, "noisy": step.noisy is not None, "guidance": step.guidance is not None}[row]


def _cell_size(picture: Image, longest: int) -> tuple[int, int]:
    scale = 1.0 if longest == 0 else min(longest / max(picture.size), 1.0)
    return max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
