"""The names of results that are kept as files."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


def test_a_number_follows_a_folders_whole_name(pack: ModuleType, models: Path) -> None:
    find_or_reserve = pack_module(pack, "nodes.result_cache").find_or_reserve
    (models / "diffusers" / "sd-v1.5").mkdir()
    (models / "checkpoints" / "sd-v1.5.safetensors").touch()
    assert find_or_reserve(models / "diffusers" / "sd-v1.5", "request").path.name == "sd-v1.5-2"
    assert (find_or_reserve(models / "checkpoints" / "sd-v1.5.safetensors", "request").path.name
            == "sd-v1.5-2.safetensors")
