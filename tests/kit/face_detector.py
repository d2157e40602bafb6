"""A file for the host's face landmarker that finds drawn faces: its own architecture, weights set by hand.

The detector answers to the colour of a drawn mouth, wherever in the picture; the network of landmarks always gives the
same upright face of one size around it. So place and number of faces are found; size and turn are given.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kit.faces import FACE, mesh
from safetensors.torch import save_file

from tools import comfyui

INPUT, MESH, ROOM = 192, 192, 1.5
"""Sides of what detector and mesh network see, in pixels; the share of a found box that the mesh network is given."""
CELLS = slice(1, 3)
"""Of three taps around a place at stride 2: itself and the next, so that two by two become one."""
REDDER, SURE = 0.55, 0.03
"""How much redder than green a mouth is at least, of -1..1, and how much of that a cell must have on average."""
PARTS = ("face_oval", "left_eye", "right_eye", "left_eyebrow", "right_eyebrow", "lips", "irises", "nose")


def write_face_detector(path: Path, scale: float, side: int) -> Path:
    """A file for `models/detection`; use it with the detector variant "full".

    Args:
        scale: Size of the faces, in multiples of `FACE`.
        side: Longer side of the pictures in pixels.
    """
    network = _host_architecture().FaceLandmarker(detector_variant="full")
    state = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    detector = {name.removeprefix("detector."): value for name, value in state.items() if name.startswith("detector.")}
    mouth = FACE[3:].mean(axis=0)
    box = 4 * np.ptp(FACE[3:, 0]) * scale  # so large that the boxes of all parts of one mouth overlap by half
    _answer_to_mouths(detector, float(box) * INPUT / side)
    found = (FACE - mouth) * scale * MESH / (ROOM * box) + MESH / 2
    landmarks = mesh(found)
    turn = np.linspace(0, 2 * np.pi, len(landmarks))
    others = MESH / 2 + 20 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    landmarks = np.where(landmarks < 0, others, landmarks)
    iris = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]]) * scale * MESH / (ROOM * box)
    landmarks[468:473], landmarks[473:478] = found[0] + iris, found[1] + iris
    deep = np.column_stack([landmarks, np.zeros(len(landmarks))]).astype(np.float32)
    state["mesh.head_landmarks.bias"].copy_(torch.from_numpy(deep).flatten())
    shared = {name: tensor for name, tensor in state.items() if name.startswith(("mesh.", "blendshapes."))}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({
        **shared, **{f"detector_full.{name}": tensor for name, tensor in detector.items()},
        **{f"topology.{part}": torch.tensor([[0, 1]], dtype=torch.int32) for part in PARTS},
        "canonical_vertices": torch.from_numpy(deep), "procrustes_indices": torch.tensor([1, 61, 291, 468, 473]),
        "procrustes_weights": torch.ones(5)}, path)
    return path


def _host_architecture() -> Any:
    """The host's file of the networks alone, without its other modules."""
    checkout = comfyui.find()
    assert checkout is not None, "mark tests that need ComfyUI with `host`"
    spec = importlib.util.spec_from_file_location("host_face_landmarker",
                                                  checkout / "comfy_extras" / "mediapipe" / "face_landmarker.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _answer_to_mouths(detector: dict[str, torch.Tensor], box: float) -> None:
    """Set the weights of the full range detector: one channel carries redness to the finest grid, 48 by 48 cells.

    Args:
        box: Side of the box that each cell proposes around itself, in pixels of the detector's input.
    """
    detector["stem.weight"][0, :, CELLS, CELLS] = torch.tensor([1.0, -1.0, 0.0])[:, None, None] / 4
    detector["stem.bias"][0] = -REDDER
    detector["backbone.2.dw1.weight"][0, 0, CELLS, CELLS] = 0.25
    for name in ("backbone.2.pw1", "backbone.2.pw2", "lateral_convs.0"):
        detector[f"{name}.weight"][0, 0] = 1
    detector["backbone.2.dw2.weight"][0, 0, 1, 1] = 1
    detector["cls_conv.weight"][:, 0] = 1
    for number in range(4):  # channels are the cells of each two by two
        detector["cls_dw.weight"][number, 0, 1 + number // 2, 1 + number % 2] = 1e4
    detector["cls_dw.bias"].fill_(-1e4 * SURE)
    # Centre, size, then six points: the eyes lie level, the left one first.
    answer = torch.tensor([0, 0, box, box, -10, 0, 10, 0] + [0] * 8, dtype=torch.float32)
    detector["reg_dw.bias"].copy_(answer.repeat(4))
