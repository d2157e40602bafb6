"""Read what a demo picture shows from its pixels alone, independent of the training code.

Templates are drawn as polygons by Pillow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

COLORS = {
    "red": (214, 38, 44), "orange": (242, 136, 24), "yellow": (248, 216, 48), "green": (36, 152, 70),
    "blue": (38, 88, 208), "purple": (128, 54, 166), "white": (246, 246, 246), "black": (18, 18, 22),
    "grey": (132, 134, 138), "pink": (246, 158, 192), "brown": (118, 74, 40),
}
SEPARATE = 45.0
"""A pixel belongs to the shape when its colour is farther than this from the background's."""
LEAST_OVERLAP = 0.6
LARGEST = 0.45
"""No shape of the demo covers more of the picture."""


@dataclass(frozen=True)
class Seen:
    shape: str
    """"nothing" where no template covers it well."""
    color: str
    background: str
    overlap: float
    """Intersection over union with the best template."""


def look(picture: Image.Image | np.ndarray) -> Seen:
    """Name the background (median of the frame), the colour (median of the inside) and the best-fitting shape."""
    rgb = np.asarray(picture, dtype=np.float32)
    sides = (rgb[:3], rgb[-3:], rgb[:, :3], rgb[:, -3:])
    ground = np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0)
    labels, count = ndimage.label(np.linalg.norm(rgb - ground, axis=2) > SEPARATE)
    if not count:
        return Seen("nothing", "nothing", nearest(ground), 0.0)
    areas = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1))
    mask = labels == int(np.argmax(areas)) + 1
    inside = ndimage.binary_erosion(mask, iterations=2)
    color = nearest(np.median(rgb[inside if inside.any() else mask], axis=0))
    shape, overlap = best_shape(mask)
    found = overlap >= LEAST_OVERLAP and mask.mean() <= LARGEST
    return Seen(shape if found else "nothing", color, nearest(ground), overlap)


def nearest(rgb: np.ndarray) -> str:
    return min(COLORS, key=lambda name: float(np.linalg.norm(rgb - np.array(COLORS[name]))))


def best_shape(mask: np.ndarray) -> tuple[str, float]:
    """Compare with each shape brought to the same centre of mass and area; give the best and its overlap."""
    y, x = ndimage.center_of_mass(mask)
    found = []
    # The centre of mass is the shape's centre for all of them; a few pixels of play forgive a ragged edge.
    places = [(x + dx, y + dy) for dx in (-2, 0, 2) for dy in (-2, 0, 2)]
    for shape in ("circle", "square", "triangle", "star", "cross", "ring"):
        unit = template(shape, mask.shape, mask.shape[1] / 2, mask.shape[0] / 2, 40)
        r = 40 * math.sqrt(mask.sum() / unit.sum())
        found.append((max(_overlap(mask, template(shape, mask.shape, *place, r)) for place in places), shape))
    overlap, shape = max(found)
    return shape, overlap


def template(shape: str, size: tuple[int, int], x: float, y: float, r: float) -> np.ndarray:
    canvas = Image.new("1", (size[1], size[0]))
    pen = ImageDraw.Draw(canvas)
    if shape in ("circle", "ring"):
        pen.ellipse((x - r, y - r, x + r, y + r), fill=1)
        if shape == "ring":
            hole = 0.56 * r
            pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
    elif shape == "square":
        pen.rectangle((x - 0.86 * r, y - 0.86 * r, x + 0.86 * r, y + 0.86 * r), fill=1)
    elif shape == "cross":
        pen.rectangle((x - r, y - 0.33 * r, x + r, y + 0.33 * r), fill=1)
        pen.rectangle((x - 0.33 * r, y - r, x + 0.33 * r, y + r), fill=1)
    else:
        corners = [(r, 0.0), (r, 2 / 3), (r, 4 / 3)] if shape == "triangle" else [
            (r if i % 2 == 0 else 0.42 * r, i / 5) for i in range(10)]
        pen.polygon([(x + d * math.sin(a * math.pi), y - d * math.cos(a * math.pi)) for d, a in corners], fill=1)
    return np.array(canvas)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))
