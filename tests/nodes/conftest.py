"""What tests share that call nodes in this process, as the host calls them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kit.pack import node_classes


@pytest.fixture(scope="module")
def nodes(pack: ModuleType) -> dict[str, Any]:
    """The pack's node classes, by id."""
    return node_classes(pack)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The host's model folders, empty."""
    import folder_paths

    for kind in ("checkpoints", "diffusers", "loras"):
        (tmp_path / kind).mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path / kind)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    return tmp_path
