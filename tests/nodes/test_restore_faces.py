"""Restore Faces with models from the host's own loader and landmarks in the host's format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from kit.face_models import write_brightener, write_gfpgan, write_restoreformer
from kit.faces import FACE, drawn, mesh, turned
from kit.pack import node_classes, pack_module
from torchvision.transforms.functional import normalize as tv_normalize

from atelier.faces import restore

pytestmark = pytest.mark.host


@pytest.fixture
def load(pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Any]:
    """A function that loads a file with core's Load Upscale Model."""
    import folder_paths
    from comfy_extras.nodes_upscale_model import UpscaleModelLoader

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "upscale_models", ([str(tmp_path)], {".safetensors"}))
    return lambda path: UpscaleModelLoader.execute(path.name).result[0]


def landmarks(picture: torch.Tensor, *frames: list[np.ndarray]) -> dict[str, Any]:
    return {"frames": [[{"landmarks_xy": mesh(points)} for points in faces] for faces in frames],
            "image_size": tuple(picture.shape[:2]), "connection_sets": {}}


def one_face() -> tuple[np.ndarray, torch.Tensor]:
    """The five points of a face, and a picture with that face."""
    points = turned(FACE, 10, 0.3, (110, 90))
    return points, drawn([points], 220, 180)


def test_only_faces_are_changed(pack: ModuleType, load: Callable[[Path], Any], tmp_path: Path) -> None:
    node: Any = node_classes(pack)["AtelierRestoreFaces"]
    points = turned(FACE, 20, 0.4, (120, 110))
    with_face, without = drawn([points], 240, 200), drawn([], 240, 200)
    image = torch.stack([with_face, without])
    done, count, report = node.execute(image=image, face_landmarks=landmarks(with_face, [points], []), strength=1.0,
                                       restoration_model=load(write_brightener(tmp_path / "b.safetensors", 0.3))).result
    assert count == 1 and report == "picture 1: 1 face restored\npicture 2: no face found, unchanged"
    assert torch.equal(done[1], without)
    eye = points[0].round().astype(int)
    torch.testing.assert_close(done[0][eye[1], eye[0]], with_face[eye[1], eye[0]] + 0.3, atol=0.03, rtol=0)
    assert torch.equal(done[0][:, -10:], with_face[:, -10:])


def test_a_degenerate_face_is_left_out_and_reported(pack: ModuleType, load: Callable[[Path], Any],
                                                         tmp_path: Path) -> None:
    node: Any = node_classes(pack)["AtelierRestoreFaces"]
    good, nowhere = turned(FACE, 20, 0.4, (120, 110)), np.full((5, 2), np.nan)
    picture = torch.cat([drawn([good], 240, 200), torch.full((200, 240, 1), 0.5)], dim=-1)
    found = landmarks(picture, [nowhere, good], [nowhere])
    done, count, report = node.execute(image=torch.stack([picture, picture]), face_landmarks=found, strength=1.0,
                                       restoration_model=load(write_brightener(tmp_path / "b.safetensors", 0.3))).result
    assert count == 1 and report.splitlines() == [
        "picture 1: 1 face restored, 1 left out: smaller than a pixel, or without a place",
        "picture 2: 0 faces restored, 1 left out: smaller than a pixel, or without a place"]
    assert torch.equal(done[1], picture) and torch.equal(done[0][..., 3], picture[..., 3])
    assert (done[0] != picture).any(dim=-1).float().mean() > 0.2


@pytest.mark.slow
def test_gfpgan_runs_in_the_range_it_was_trained_on(pack: ModuleType, load: Callable[[Path], Any],
                                                      tmp_path: Path) -> None:
    """From -1 to 1, as its authors run it, and with the noise stored in its file, so that runs repeat."""
    node: Any = node_classes(pack)["AtelierRestoreFaces"]
    model = load(write_gfpgan(tmp_path / "GFPGANv1.4.safetensors"))
    assert model.architecture.id == "GFPGAN"
    points, picture = one_face()

    def by_hand(face: torch.Tensor) -> torch.Tensor:
        seen = tv_normalize(face.movedim(-1, 0)[None], [0.5] * 3, [0.5] * 3)
        answer, _ = model.model(seen, return_rgb=False, randomize_noise=False)
        return answer[0].movedim(0, -1).clamp(-1, 1) / 2 + 0.5

    with torch.inference_mode():
        before = torch.get_rng_state()
        done, count, _ = node.execute(image=picture[None], face_landmarks=landmarks(picture, [points]),
                                      restoration_model=model, strength=1.0).result
        assert torch.equal(torch.get_rng_state(), before), "the host's random state changed"
        expected = restore(picture, [points], by_hand, 1.0)
    assert count == 1
    torch.testing.assert_close(done[0], expected, atol=1e-4, rtol=0)
    assert (done[0] - picture).abs().mean() > 0.05


def test_gfpgan_can_be_moved_by_every_version_of_the_host(pack: ModuleType) -> None:
    """Versions before 0.28 use `to`; later ones use `patcher` where a model has one."""
    older = SimpleNamespace(scale=1, to=lambda device: f"moved to {device}", model=None)
    wrapped = pack_module(pack, "nodes.restore_faces")._GfpganRange(older)
    assert wrapped.to("cpu") == "moved to cpu" and wrapped.scale == 1 and not hasattr(wrapped, "patcher")


def test_restoreformer_runs_as_the_hosts_library_runs_it(pack: ModuleType, load: Callable[[Path], Any],
                                                             tmp_path: Path) -> None:
    node: Any = node_classes(pack)["AtelierRestoreFaces"]
    model = load(write_restoreformer(tmp_path / "RestoreFormer.safetensors"))
    assert model.architecture.id == "RestoreFormer"
    points, picture = one_face()
    with torch.inference_mode():
        done, *_ = node.execute(image=picture[None], face_landmarks=landmarks(picture, [points]),
                                restoration_model=model, strength=1.0).result
        expected = restore(picture, [points], lambda face: model(face.movedim(-1, 0)[None])[0].movedim(0, -1), 1.0)
    torch.testing.assert_close(done[0], expected, atol=1e-4, rtol=0)
    assert (done[0] - picture).abs().mean() > 0.02


def test_landmarks_of_other_pictures_raise_an_error(pack: ModuleType) -> None:
    node: Any = node_classes(pack)["AtelierRestoreFaces"]
    picture = drawn([], 64, 48)
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match="same pictures to both"):
        node.execute(image=picture[None], face_landmarks=landmarks(picture, [], []), restoration_model=None,
                     strength=1.0)
