"""Fixtures for tests that call nodes in this process, as the host calls them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kit.clip_models import clip_config, random_clip, save_clip
from kit.pack import node_classes


@pytest.fixture(scope="module")
def nodes(pack: ModuleType) -> dict[str, Any]:
    """The pack's node classes, by id."""
    return node_classes(pack)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with empty model folders, which the host uses."""
    import folder_paths

    for kind in ("checkpoints", "diffusers", "loras"):
        (tmp_path / kind).mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path / kind)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    return tmp_path


@pytest.fixture
def in_input(pack: ModuleType, tmp_path: Path) -> Path:
    """A new folder in the host's input folder."""
    import folder_paths

    folder = Path(folder_paths.get_input_directory()) / tmp_path.name
    folder.mkdir()
    return folder


@pytest.fixture
def clip_score_model(pack: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The name of a small CLIP model, the only one in models/clip_score."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clip_score", ([], set()))
    save_clip(tmp_path / "clip_score" / "tiny clip", random_clip(clip_config()))
    return "tiny clip"
