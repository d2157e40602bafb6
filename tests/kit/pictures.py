"""Picture files for tests, different for each seed and not symmetric in any direction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def noise_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth coloured noise: survives JPEG, and every mirrored or turned copy differs."""
    coarse = np.random.default_rng(seed).integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_pictures(folder: Path, sizes: list[tuple[int, int]], captions: bool = True) -> Path:
    """`p0.png`, `p1.png`, … with sidecars `p0.txt`, …; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (width, height) in enumerate(sizes):
        noise_picture(width, height, number).save(folder / f"p{number}.png")
        if captions:
            (folder / f"p{number}.txt").write_text(f"a fox, red, seen {number}", encoding="utf-8")
    return folder


def put(path: Path, seed: int = 0, size: tuple[int, int] = (32, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(path.suffix.lower(), "PNG")
    noise_picture(*size, seed).save(path, kind)
    return path
