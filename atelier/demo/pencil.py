"""The demo's second style: coloured pencil on cream paper, a style the base model has never seen."""

from __future__ import annotations

import numpy as np

PAPER = (238, 226, 198)
GRAPHITE = (58, 56, 60)


def sketch(distance: np.ndarray, fill: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sketch a shape: paper, a graphite outline drawn by an unsteady hand, and diagonal strokes of its colour inside.

    Args:
        distance: Signed distance to the outline in pixels, `[H, W]`.
        fill: The pencil's RGB colour, 0 to 255.
        rng: Where the hand's unsteadiness comes from.

    Returns:
        Float RGB 0 to 255, `[H, W, 3]`. Widths scale with the picture: they are given for 128 pixels.
    """
    height, width = distance.shape
    unit = height / 128
    y, x = np.mgrid[0:height, 0:width] / unit
    wobble = 1.2 * np.sin(x / 9 + rng.uniform(0, 6.3)) + 1.2 * np.sin(y / 8 + rng.uniform(0, 6.3))
    distance = distance / unit + wobble
    across = (x + y) / np.sqrt(2) + 0.8 * np.sin((x - y) / 13 + rng.uniform(0, 6.3)) + rng.uniform(0, 6)
    # Strokes every 6 pixels, 4 wide, stopping short of the outline.
    stroke = np.clip(2.5 - np.abs(across % 6 - 3.0), 0, 1) * np.clip(-1.5 - distance, 0, 1)
    outline = np.clip(2.3 - np.abs(distance), 0, 1)
    rgb = np.array(PAPER) + rng.uniform(-4, 4, (height, width, 1))
    rgb = rgb + 0.9 * stroke[..., None] * (fill - rgb)
    return rgb + 0.9 * outline[..., None] * (np.array(GRAPHITE) - rgb)
