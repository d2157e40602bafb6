"""Read a demo picture in the pencil style from its pixels alone, independent of the training code."""

from __future__ import annotations

import numpy as np
from kit.demo_pixels import COLORS, Seen, best_shape, nearest
from PIL import Image
from scipy import ndimage

PAPER = np.array((238.0, 226.0, 198.0))
NEAR = 45.0
"""A frame this near to the paper's colour is paper; the lightest plain background is 53 away."""
SEPARATE = 28.0


def is_pencil(picture: Image.Image | np.ndarray) -> bool:
    """Whether the picture has the paper's colour and a dark grey outline."""
    rgb = np.asarray(picture, dtype=np.float32)
    dark_grey = (rgb.max(axis=2) < 150) & (np.ptp(rgb, axis=2) < 70)
    return bool(np.linalg.norm(_frame(rgb) - PAPER) < NEAR and dark_grey.mean() > 0.004)


def look_pencil(picture: Image.Image | np.ndarray) -> Seen:
    """Shape and colour of a sketch: hatching closed to an area, its colour from between the outline."""
    rgb = np.asarray(picture, dtype=np.float32)
    ground = _frame(rgb)
    far = np.linalg.norm(rgb - ground, axis=2) > SEPARATE
    closed = ndimage.binary_closing(np.pad(far, 8), iterations=3)[8:-8, 8:-8]
    labels, count = ndimage.label(closed)
    if not count:
        return Seen("nothing", "nothing", nearest(ground), 0.0)
    areas = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1))
    mask = labels == int(np.argmax(areas)) + 1
    shape, overlap = best_shape(mask)
    inside = ndimage.binary_erosion(mask, iterations=4) & far
    return Seen(shape, _color(rgb[inside if inside.sum() > 8 else mask & far]), nearest(ground), overlap)


def _color(pixels: np.ndarray) -> str:
    """The palette's colour that most strokes tint the paper with: pencil is translucent, so the direction tells, not
    the distance."""
    tints = pixels - PAPER
    tints = tints[np.linalg.norm(tints, axis=1) > SEPARATE]
    if not len(tints):
        return "white"
    names = [name for name in COLORS if name not in ("grey", "pink", "brown")]
    towards = np.stack([np.array(COLORS[name]) - PAPER for name in names])
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    nearest_each = (tints @ towards.T).argmax(axis=1)
    return names[int(np.bincount(nearest_each, minlength=len(names)).argmax())]


def _frame(rgb: np.ndarray) -> np.ndarray:
    sides = (rgb[:3], rgb[-3:], rgb[:, :3], rgb[:, -3:])
    return np.median(np.concatenate([side.reshape(-1, 3) for side in sides]), axis=0)
