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
from kit.small_workflows import node_of
from PIL import Image
from safetensors.torch import load_file

from atelier.faces import restore
from tools.workflows import read_api

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


def test_the_workflow_restores_what_it_finds(host: Host) -> None:
    """As it ships; only the two models under the names that it gives are of ours."""
    write_face_detector(host.base / "models" / "detection" / "mediapipe_face_fp32.safetensors", SCALE, WIDTH)
    gfpgan = host.base / "models" / "upscale_models" / "GFPGANv1.4.pth"
    torch.save({"params_ema": load_file(write_brightener(gfpgan.with_suffix(".safetensors"), 0.3))}, gfpgan)
    faces = [turned(FACE, 0, SCALE, place) for place in ((75, 90), (240, 150))]
    drawing = drawn(faces, WIDTH, HEIGHT)
    photo = host.base / "input" / "example.png"
    kept = photo.read_bytes() if photo.exists() else None
    Image.fromarray((drawing * 255).round().to(torch.uint8).numpy()).save(photo)
    try:
        made = read_api("restore_faces")
        result = host.queue(made)
    finally:
        photo.write_bytes(kept) if kept is not None else photo.unlink()
    assert result.status == "success", result.error
    assert result.text(node_of(made, "AtelierRestoreFaces")) == "picture 1: 2 faces restored"
    expected = restore(drawing, faces, lambda face: (face + 0.3).clamp(0, 1), 0.8).numpy() * 255
    (saved,), (both,) = (result.pictures(node_of(made, kind)) for kind in ("SaveImage", "PreviewImage"))
    touched = (np.abs(expected - drawing.numpy() * 255) > 1).any(axis=-1)
    assert np.abs(saved - expected)[touched].mean() < 3
    assert both.shape == (HEIGHT, 2 * WIDTH + 8, 3)
    assert np.abs(both[:, WIDTH + 8:].astype(int) - saved).max() <= 1
