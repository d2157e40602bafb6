"""Drawn faces whose landmarks are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

FACE = np.array([[-63.0, -40.0], [63.0, -40.0], [0.0, 34.0], [-56.0, 91.0], [56.0, 91.0]])
"""Eyes, tip of the nose and corners of the mouth of an upright face around the origin, in pixels."""


def turned(points: np.ndarray, degrees: float, scale: float, center: tuple[float, float]) -> np.ndarray:
    """The points turned clockwise, made smaller or larger, and moved to `center`."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return points @ turn.T * scale + np.array(center)


def drawn(faces: Sequence[np.ndarray], width: int, height: int) -> torch.Tensor:
    """A picture `[height, width, 3]`, float 0..1, with a simple face at each of the five-point sets."""
    picture = Image.new("RGB", (width, height), (70, 110, 150))
    pen = ImageDraw.Draw(picture)
    for points in faces:
        size = float(np.linalg.norm(points[1] - points[0]))
        head = points.mean(axis=0)
        _disc(pen, (float(head[0]), float(head[1])), 1.5 * size, (230, 190, 160))
        for eye in points[:2]:
            _disc(pen, (float(eye[0]), float(eye[1])), 0.16 * size, (20, 20, 30))
        _disc(pen, (float(points[2][0]), float(points[2][1])), 0.1 * size, (210, 150, 120))
        ends = [(float(x), float(y)) for x, y in points[3:]]
        pen.line(ends, fill=(150, 40, 40), width=max(round(size / 10), 1))
    return torch.from_numpy(np.asarray(picture).astype(np.float32) / 255)


def mesh(points: np.ndarray) -> np.ndarray:
    """478 landmarks as MediaPipe numbers them, of which those that stand for the five points are right."""
    found = np.full((478, 2), -1000.0)
    ring = np.array([[0, 0], [4, 0], [0, 4], [-4, 0], [0, -4]])
    found[468:473], found[473:478] = points[0] + ring, points[1] + ring
    found[1], found[61], found[291] = points[2:]
    return found


def _disc(pen: ImageDraw.ImageDraw, center: tuple[float, float], radius: float, fill: tuple[int, int, int]) -> None:
    x, y = center
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
