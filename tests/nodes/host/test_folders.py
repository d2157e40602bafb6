"""Files and folders by the names that the host lists or a person types."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest
from kit.pack import node_classes, pack_module

pytestmark = pytest.mark.host


def test_input_folder_takes_relative_quoted_and_padded_paths(pack: ModuleType) -> None:
    import folder_paths

    folders, error = pack_module(pack, "nodes.host.folders"), pack_module(pack, "atelier.errors").AtelierError
    inside = Path(folder_paths.get_input_directory()) / "my pictures"
    inside.mkdir(exist_ok=True)
    assert folders.input_folder(" my pictures ") == inside
    assert folders.input_folder(f'"{inside}"') == inside
    with pytest.raises(error, match="not a folder"):
        folders.input_folder("other pictures")
    with pytest.raises(error, match="No folder is given"):
        folders.input_folder(" ")
    with pytest.raises(error, match="not a folder"):
        folders.input_folder("~nobody-of-this-name/a")
    with pytest.raises(error, match="null character"):
        folders.input_folder("a\0b")


@pytest.mark.parametrize(("kind", "file", "names"), [("diffusers", "model_index.json", "diffusers_names"),
                                                     ("loras", "adapter_config.json", "peft_names")])
def test_an_unfinished_folder_is_not_listed(pack: ModuleType, models: Path, kind: str, file: str, names: str
                                                    ) -> None:
    """For instance a model that is still being written, or whose process was killed meanwhile."""
    names_of_folders = getattr(pack_module(pack, "nodes.host.folders"), names)
    with pack_module(pack, "atelier.files").atomic_folder(models / kind / "new") as folder:
        (folder / file).touch()
        assert names_of_folders() == []
    assert names_of_folders() == ["new"]


def test_disk_state_changes_with_times_and_files_in_any_folder(pack: ModuleType, tmp_path: Path) -> None:
    state = pack_module(pack, "nodes.host.folders").disk_state
    (tmp_path / "a.txt").write_text("one")
    first = state(tmp_path)
    assert state(tmp_path) == first
    os.utime(tmp_path / "a.txt", (1, 1))
    second = state(tmp_path)
    (tmp_path / "b.txt").write_text("")
    third = state(tmp_path)
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "deep" / "deeper" / "c.txt").write_text("")
    assert len({first, second, third, state(tmp_path)}) == 4


def test_disk_state_follows_links(pack: ModuleType, tmp_path: Path) -> None:
    state = pack_module(pack, "nodes.host.folders").disk_state
    for name in ("set", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "set" / "fox").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "set", target_is_directory=True)
    before = state(tmp_path / "set")
    (tmp_path / "elsewhere" / "a.txt").write_text("one")
    assert state(tmp_path / "set") != before


def test_clip_score_names_are_the_models_in_the_folder(pack: ModuleType, clip_score_model: str, tmp_path: Path) -> None:
    folders = pack_module(pack, "nodes.host.folders")
    (tmp_path / "clip_score" / "ViT-B-32.safetensors").touch()
    (tmp_path / "clip_score" / "notes").mkdir()
    nested = tmp_path / "clip_score" / "openai" / "clip-vit-base-patch32"
    nested.mkdir(parents=True)
    for file in ("config.json", "model.safetensors"):
        (nested / file).touch()
    (tmp_path / "clip_score" / "openai" / "L.safetensors").touch()
    assert folders.clip_score_names() == ["ViT-B-32.safetensors", "openai/L.safetensors",
                                          "openai/clip-vit-base-patch32", "tiny clip"]
    assert folders.clip_score_path("openai\\clip-vit-base-patch32") == nested
    assert folders.clip_score_path("tiny clip") == tmp_path / "clip_score" / "tiny clip"
    for name in ("notes", "../clip_score/tiny clip"):
        with pytest.raises(Exception, match="no CLIP model"):
            folders.clip_score_path(name)


def test_the_tokenizer_vocabulary_is_the_hosts(pack: ModuleType) -> None:
    assert node_classes(pack)  # calls on_load, as the host does
    folder = pack_module(pack, "atelier.models.tokenizer")._folder
    assert folder.name == "sd1_tokenizer" and (folder / "merges.txt").is_file()


def test_a_new_file_never_takes_the_place_of_another(pack: ModuleType) -> None:
    folders = pack_module(pack, "nodes.host.folders")
    paths = []
    for _ in range(3):
        path, subfolder = folders.next_output_file("steps of/denoising", ".webp")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        paths.append(path)
    assert len(set(paths)) == 3 and subfolder == "steps of"
    assert [path.name for path in paths] == [f"denoising_0000{n}_.webp" for n in (1, 2, 3)]


def test_a_number_that_the_host_did_not_count_is_passed_over(pack: ModuleType, monkeypatch: pytest.MonkeyPatch,
                                                             tmp_path: Path) -> None:
    """Two graphs may ask at once, and the host counts for both before either has written."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_save_image_path", lambda name, folder: (str(tmp_path), name, 1, "", name))
    for number in (1, 2, 3):
        (tmp_path / f"a_0000{number}_.webp").touch()
    path, _ = pack_module(pack, "nodes.host.folders").next_output_file("a", ".webp")
    assert path.name == "a_00004_.webp"


def test_a_model_that_the_host_does_not_list_is_named(pack: ModuleType, models: Path) -> None:
    path = pack_module(pack, "nodes.host.folders").model_path
    (models / "loras" / "sub").mkdir()
    (models / "loras" / "sub" / "a.safetensors").touch()
    assert path("loras", "sub\\a.safetensors") == path("loras", "sub/a.safetensors")
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match=r"'a\..*' in the loras folders"):
        path("loras", "a.safetensors")
