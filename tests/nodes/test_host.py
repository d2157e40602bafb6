"""The pack's door to the host: folders, pictures and memory."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from kit.pack import pack_module
from PIL import Image

pytestmark = pytest.mark.host


def test_pictures_survive_the_way_to_the_host_and_back(pack: ModuleType) -> None:
    host = pack_module(pack, "nodes.host")
    picture = Image.linear_gradient("L").convert("RGB")
    tensor = host.to_image_tensor([picture, picture])
    assert tensor.shape == (2, 256, 256, 3)
    assert tensor.dtype == torch.float32
    assert 0 <= tensor.min() < tensor.max() <= 1
    assert host.from_image_tensor(tensor)[1].tobytes() == picture.tobytes()


def test_values_beyond_the_range_are_cut(pack: ModuleType) -> None:
    picture = pack_module(pack, "nodes.host").from_image_tensor(torch.tensor([-1.0, 0.5, 2.0]).reshape(1, 1, 1, 3))[0]
    assert picture.getpixel((0, 0)) == (0, 128, 255)


def test_training_room_has_gradients_and_leaves_no_trace(pack: ModuleType) -> None:
    host = pack_module(pack, "nodes.host")
    with torch.inference_mode():
        with host.exclusive_device():
            weight = torch.ones(2, requires_grad=True)
            (weight * weight).sum().backward()
            assert weight.grad is not None
        assert torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()


def test_input_folders(pack: ModuleType) -> None:
    import folder_paths

    host, error = pack_module(pack, "nodes.host"), pack_module(pack, "atelier.errors").AtelierError
    inside = pack_module(pack, "nodes.host").Path(folder_paths.get_input_directory()) / "my pictures"
    inside.mkdir(exist_ok=True)
    assert host.input_folder(" my pictures ") == inside
    assert host.input_folder(f'"{inside}"') == inside
    with pytest.raises(error, match="not a folder"):
        host.input_folder("other pictures")
    with pytest.raises(error, match="No folder is given"):
        host.input_folder(" ")


@pytest.mark.parametrize(("kind", "file", "names"), [("diffusers", "model_index.json", "diffusers_names"),
                                                     ("loras", "adapter_config.json", "peft_names")])
def test_what_is_still_being_written_is_not_offered(pack: ModuleType, models: Path, kind: str, file: str, names: str
                                                    ) -> None:
    """Such as a model whose gigabytes are on their way to the disk, or whose process was killed then."""
    offered = getattr(pack_module(pack, "nodes.host"), names)
    with pack_module(pack, "atelier.files").atomic_folder(models / kind / "new") as folder:
        (folder / file).touch()
        assert offered() == []
    assert offered() == ["new"]


def test_disk_state_sees_what_changes(pack: ModuleType, tmp_path: Path) -> None:
    import os

    state = pack_module(pack, "nodes.host").disk_state
    (tmp_path / "a.txt").write_text("one")
    first = state(tmp_path)
    assert state(tmp_path) == first
    os.utime(tmp_path / "a.txt", (1, 1))
    second = state(tmp_path)
    (tmp_path / "b.txt").write_text("")
    assert len({first, second, state(tmp_path)}) == 3


def test_disk_state_sees_what_changes_behind_a_link(pack: ModuleType, tmp_path: Path) -> None:
    state = pack_module(pack, "nodes.host").disk_state
    for name in ("set", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "set" / "fox").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "set", target_is_directory=True)
    before = state(tmp_path / "set")
    (tmp_path / "elsewhere" / "a.txt").write_text("one")
    assert state(tmp_path / "set") != before
