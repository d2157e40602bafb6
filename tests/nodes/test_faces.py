"""The face node with a model that the host's own loader library opens, and landmarks in the host's own form."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from kit.faces import FACE, drawn, mesh, turned
from kit.pack import node_classes, pack_module

pytestmark = pytest.mark.host


def brightener(amount: float = 0.3) -> Any:
    """An UPSCALE_MODEL as core's loader makes it: a small network (SRVGGNetCompact) that adds a constant."""
    import comfy.model_management
    import comfy.model_patcher
    from spandrel import ModelLoader

    state = {"body.0.weight": torch.zeros(8, 3, 3, 3), "body.0.bias": torch.zeros(8), "body.1.weight": torch.ones(8),
             "body.2.weight": torch.zeros(8, 8, 3, 3), "body.2.bias": torch.zeros(8), "body.3.weight": torch.ones(8),
             "body.4.weight": torch.zeros(3, 8, 3, 3), "body.4.bias": torch.full((3,), amount)}
    model: Any = ModelLoader().load_from_state_dict(state).eval()
    assert model.scale == 1
    model.patcher = comfy.model_patcher.CoreModelPatcher(
        model.model, load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device())
    return model


def landmarks(picture: torch.Tensor, *frames: list[np.ndarray]) -> dict[str, Any]:
    return {"frames": [[{"landmarks_xy": mesh(points)} for points in faces] for faces in frames],
            "image_size": tuple(picture.shape[:2]), "connection_sets": {}}


def test_faces_are_restored_where_there_are_some(pack: ModuleType) -> None:
    node: Any = node_classes(pack)["AtelierRestoreFaces"]
    points = turned(FACE, 20, 0.4, (120, 110))
    with_face, without = drawn([points], 240, 200), drawn([], 240, 200)
    image = torch.stack([with_face, without])
    done, count, report = node.execute(image=image, face_landmarks=landmarks(with_face, [points], []),
                                       restoration_model=brightener(), strength=1.0).result
    assert count == 1 and report == "picture 1: 1 faces restored\npicture 2: no face found, unchanged"
    assert torch.equal(done[1], without)
    eye = points[0].round().astype(int)
    torch.testing.assert_close(done[0][eye[1], eye[0]], with_face[eye[1], eye[0]] + 0.3, atol=0.03, rtol=0)
    assert torch.equal(done[0][:, -10:], with_face[:, -10:])


def test_landmarks_of_other_pictures_are_refused(pack: ModuleType) -> None:
    node: Any = node_classes(pack)["AtelierRestoreFaces"]
    picture = drawn([], 64, 48)
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match="same pictures to both"):
        node.execute(image=picture[None], face_landmarks=landmarks(picture, [], []), restoration_model=None,
                     strength=1.0)
