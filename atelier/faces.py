"""Align faces for restoration models, and blend the restored faces back with a soft edge.

Restoration models (GFPGAN, CodeFormer, RestoreFormer) were trained on faces aligned as in FFHQ (Karras et al. 2019,
https://arxiv.org/abs/1812.04948) at 512 pixels; they cannot restore unaligned tiles of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .errors import AtelierError

if TYPE_CHECKING:
    import torch

SIZE = 512
TEMPLATE = np.array([[192.98, 239.95], [318.90, 240.19], [256.63, 314.02], [201.26, 371.41], [313.09, 371.15]])
"""Eyes, tip of the nose and corners of the mouth of an aligned face in pixels: the mean of FFHQ's landmarks, which all
these models share. The viewer's left comes first."""
CENTER, RADII, EDGE = (256.0, 282.0), (188.0, 218.0), 0.25
"""The ellipse that is blended back, from hairline to chin, and the share of its radius over which it fades in."""

_MESH_EYES = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))
_MESH_NOSE, _MESH_MOUTH = 1, (61, 291)
"""Points of MediaPipe's face mesh: the rings of both irises, the tip of the nose, the corners of the mouth."""


def five_points(mesh: np.ndarray) -> np.ndarray:
    """Eyes, nose and mouth corners `[5, 2]` in pixels from MediaPipe's face mesh `[478, 2]`.

    Raises:
        AtelierError: the mesh has no irises.
    """
    if mesh.ndim != 2 or len(mesh) < 478:
        raise AtelierError(f"The face has {len(mesh)} landmarks; 478 are needed.",
                           "Detect faces with MediaPipe Face Landmarker.")
    eyes = [mesh[list(ring), :2].mean(axis=0) for ring in _MESH_EYES]
    return np.stack([*eyes, mesh[_MESH_NOSE, :2], *mesh[list(_MESH_MOUTH), :2]])


def can_be_aligned(points: np.ndarray) -> bool:
    """Whether five points `[5, 2]` can be aligned: finite, and not all within one pixel."""
    return bool(np.isfinite(points).all()) and float(((points - points.mean(axis=0)) ** 2).sum()) >= 1


def alignment(points: np.ndarray) -> np.ndarray:
    """The similarity transform `[2, 3]` that maps five points onto `TEMPLATE` by least squares (Umeyama
    1991, https://doi.org/10.1109/34.88573).

    Raises:
        AtelierError: `can_be_aligned` is False for the points.
    """
    if not can_be_aligned(points):
        raise AtelierError("The landmarks of a face lie at one point or are no numbers.", "Detect the faces anew.")
    source, target = points - points.mean(axis=0), TEMPLATE - TEMPLATE.mean(axis=0)
    spread = (source ** 2).sum()
    # With points as complex numbers, rotation and scale are one factor.
    real = (source * target).sum() / spread
    imaginary = (source[:, 0] * target[:, 1] - source[:, 1] * target[:, 0]).sum() / spread
    turn = np.array([[real, -imaginary], [imaginary, real]])
    return np.column_stack([turn, TEMPLATE.mean(axis=0) - turn @ points.mean(axis=0)])


def aligned(picture: torch.Tensor, matrix: np.ndarray) -> torch.Tensor:
    """The aligned face: `[512, 512, 3]` float32 from a picture `[H, W, 3]`, its edges repeated outside."""
    return _sampled(picture, _inverse(matrix), (SIZE, SIZE), (0, 0), "bicubic").clamp(0, 1)


def restore(picture: torch.Tensor, faces: list[np.ndarray], model: Callable[[torch.Tensor], torch.Tensor],
            strength: float = 1.0) -> torch.Tensor:
    """The picture with each face restored and blended back; every pixel outside the faces stays bit for bit.

    Args:
        picture: `[H, W, 3]`, or `[H, W, 4]` with alpha, which stays; float of any precision, 0..1.
        faces: Five points `[5, 2]` in pixels for each face. Smaller faces come last, over the larger ones; those that
            cannot be aligned are skipped.
        model: Restores an aligned face, `[512, 512, 3]` to the same or another size, 0..1.
        strength: 0 keeps the picture, 1 uses the restored faces fully.

    Raises:
        AtelierError: strength is out of range.
    """
    if not 0 <= strength <= 1:
        raise AtelierError(f"strength is {strength}.", "Choose a number from 0 to 1.")
    result = picture.clone()
    if strength == 0:
        return result
    colours = result[..., :3]
    for matrix in sorted((alignment(points) for points in faces if can_be_aligned(points)), key=_scale):
        face = _to_size(model(aligned(colours, matrix)).float())
        _blend_back(colours, face, matrix, strength)
    return result


def _blend_back(picture: torch.Tensor, face: torch.Tensor, matrix: np.ndarray, strength: float) -> None:
    left, top, right, bottom = _box(matrix, picture.shape[1], picture.shape[0])
    if right <= left or bottom <= top:
        return
    size, corner = (right - left, bottom - top), (left, top)
    there = picture[top:bottom, left:right]
    before = there.float()
    share = strength * _sampled(_mask().to(before), matrix, size, corner, "bilinear")
    restored = _sampled(face.to(before), matrix, size, corner, "bicubic").clamp(0, 1)
    # Keep the exact pixels where the share is 0; the sum would round them.
    there.copy_((before + (restored - before) * share).where(share > 0, before))


def _mask() -> torch.Tensor:
    """`[512, 512, 1]`: 1 inside the ellipse, smoothly to 0 at its edge."""
    import torch

    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    radius = (((x - CENTER[0]) / RADII[0]) ** 2 + ((y - CENTER[1]) / RADII[1]) ** 2).sqrt()
    inside = ((1 - radius) / EDGE).clamp(0, 1)
    return (inside * inside * (3 - 2 * inside))[..., None]


def _box(matrix: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """The part of the picture that an aligned face covers: left, top, right, bottom."""
    back = _inverse(matrix)
    corners = np.array([[0, 0, 1], [SIZE, 0, 1], [0, SIZE, 1], [SIZE, SIZE, 1]]) @ back.T
    low, high = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0)) + 1
    return (max(int(low[0]), 0), max(int(low[1]), 0), min(int(high[0]), width), min(int(high[1]), height))


def _sampled(source: torch.Tensor, matrix: np.ndarray, size: tuple[int, int], corner: tuple[int, int],
             mode: str) -> torch.Tensor:
    """`source` `[h, w, C]` resampled through `matrix`, which maps pixels of the result to pixels of the source.

    Where a pixel of the result covers several of the source, it is the mean of samples at most one pixel apart,
    which avoids aliasing.

    Args:
        size: (width, height) of the result.
        corner: Position of the result's upper left pixel, before `matrix`.

    Returns:
        `[height, width, C]` float32: half precision cannot address the pixels of a large picture.
    """
    import torch

    times = max(math.ceil(_scale(matrix) - 1e-6), 1)
    x, y = ((torch.arange(length * times, dtype=torch.float64) + 0.5) / times - 0.5 + start
            for length, start in zip(size, corner, strict=True))
    grid = torch.stack([((row[0] * x[None, :] + row[1] * y[:, None] + row[2]) * 2 + 1) / length - 1
                        for row, length in zip(matrix, (source.shape[1], source.shape[0]), strict=True)], dim=-1)
    colours = source.float().movedim(-1, 0)[None]
    seen = torch.nn.functional.grid_sample(colours, grid.to(colours)[None], mode=mode, padding_mode="border",
                                           align_corners=False)
    return torch.nn.functional.avg_pool2d(seen, times)[0].movedim(0, -1)


def _to_size(face: torch.Tensor) -> torch.Tensor:
    import torch

    if face.shape[:2] == (SIZE, SIZE):
        return face
    return torch.nn.functional.interpolate(face.movedim(-1, 0)[None], (SIZE, SIZE), mode="bilinear", antialias=True,
                                           align_corners=False)[0].movedim(0, -1)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    turn = np.linalg.inv(matrix[:, :2])
    return np.column_stack([turn, -turn @ matrix[:, 2]])


def _scale(matrix: np.ndarray) -> float:
    """The scale of a similarity transform along one side."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))
