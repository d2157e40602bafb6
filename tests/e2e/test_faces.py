"""Faces found by the host's own landmarker, restored and put back, in a running ComfyUI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kit.face_detector import write_face_detector
from kit.face_models import write_brightener
from kit.faces import FACE, drawn, turned
from kit.graphs import Graph
from kit.host import Host, Result
from PIL import Image

from atelier.faces import restore

pytestmark = pytest.mark.host

WIDTH, HEIGHT, SCALE = 320, 240, 0.35


@pytest.fixture(scope="module")
def detector(host: Host) -> str:
    write_brightener(host.base / "models" / "upscale_models" / "brighter.safetensors", 0.3)
    return write_face_detector(host.base / "models" / "detection" / "mouths.safetensors", SCALE, WIDTH).name


def restored(host: Host, detector: str, *faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, Result]:
    """A picture with these faces before and after, both as the host shows them."""
    levels = (drawn(faces, WIDTH, HEIGHT) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(levels).save(host.base / "input" / "faces.png")
    result = host.queue(Graph(
        photo=("LoadImage", {"image": "faces.png"}), find=("LoadMediaPipeFaceLandmarker", {"model_name": detector}),
        found=("MediaPipeFaceLandmarker", {"face_detection_model": ["find", 0], "image": ["photo", 0],
                                           "detector_variant": "full", "num_faces": 0}),
        model=("UpscaleModelLoader", {"model_name": "brighter.safetensors"}),
        ours=("AtelierRestoreFaces", {"image": ["photo", 0], "face_landmarks": ["found", 0],
                                      "restoration_model": ["model", 0], "strength": 1.0}),
        before=("PreviewImage", {"images": ["photo", 0]}), after=("PreviewImage", {"images": ["ours", 0]}),
    ).fill(host))
    assert result.status == "success", result.error
    (before,), (after,) = result.pictures("before"), result.pictures("after")
    return before.astype(int), after.astype(int), result


@pytest.mark.parametrize("places", [[(90, 110)], [(215, 130)], [(75, 90), (240, 150)]])
def test_faces_are_found_replaced_and_blended_and_the_rest_stays(host: Host, detector: str,
                                                                 places: list[tuple[int, int]]) -> None:
    faces = [turned(FACE, 0, SCALE, place) for place in places]
    before, after, result = restored(host, detector, *faces)
    count = len(faces)
    assert result.text("ours") == f"picture 1: {count} {'face' if count == 1 else 'faces'} restored"
    change = after - before
    # The same with landmarks from the drawing: they differ by what a cell of the detector's grid covers.
    expected = restore(drawn(faces, WIDTH, HEIGHT), faces, lambda face: (face + 0.3).clamp(0, 1)).numpy() * 255
    touched = (np.abs(expected - before) > 1).any(axis=-1)
    assert np.abs(after - expected)[touched].mean() < 3 < np.abs(before - expected)[touched].mean() / 10
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    away = np.ones((HEIGHT, WIDTH), bool)
    for points in faces:
        for column, row in points[:3].round().astype(int):  # eyes and nose; the mouth's corners are at an edge
            here = change[row - 1:row + 2, column - 1:column + 2]
            wanted = np.minimum(before[row, column] + 76.5, 255) - before[row, column]
            assert np.abs(here.mean(axis=(0, 1)) - wanted).max() < 6
        distance = np.hypot(x - points[2][0], y - points[2][1])
        edge = change[(distance > 150 * SCALE) & (distance < 250 * SCALE)]
        assert ((edge > 3) & (edge < 60)).any(axis=-1).mean() > 0.2, "a soft edge"
        away &= distance > 280 * SCALE
    assert away.mean() > 0.1 and not change[away].any()


def test_where_nobody_is_nothing_happens(host: Host, detector: str) -> None:
    before, after, result = restored(host, detector)
    assert result.text("ours") == "picture 1: no face found, unchanged"
    assert np.array_equal(before, after)
