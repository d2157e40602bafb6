"""The files behind the host's models, and their fingerprint: each is read once while it stays as it is."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


@pytest.fixture
def source(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, which has read nothing yet."""
    found = pack_module(pack, "nodes.host.loaded.source")
    monkeypatch.setattr(found, "_known", {})
    return found


def test_files_are_found_in_a_loaders_lists_too_and_not_in_its_options(source: Any, tmp_path: Path) -> None:
    """Loaders of several text encoders get a list of files."""
    for name in ("a", "b", "c", "option"):
        (tmp_path / name).touch()
    files = [str(tmp_path / name) for name in ("a", "b", "c")]
    given = (files[0], [files[1], (files[2],)], str(tmp_path / "gone"), None, 3, {"option": str(tmp_path / "option")})
    assert source.files_of(SimpleNamespace(cached_patcher_init=(None, given)), "CLIP") == [Path(file) for file in files]


def test_a_file_is_read_once_until_it_changes(source: Any, pack: ModuleType, tmp_path: Path) -> None:
    class Phases(pack_module(pack, "atelier.progress").Progress):  # type: ignore[misc]
        def phase(self, name: str, total: int) -> None:
            phases.append(name)

    phases: list[str] = []
    path = tmp_path / "a"
    path.write_bytes(b"one")

    def fingerprint(options: Any = None) -> str:
        return source.fingerprint([path], options, Phases())

    before = fingerprint()
    assert fingerprint() == before != fingerprint({"dtype": "fp8"}) and phases == ["reading"]
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 10**18))
    changed = fingerprint()
    assert changed != before and phases == ["reading"] * 2
    path.write_bytes(b"one")
    os.utime(path, ns=(0, 2 * 10**18))
    assert fingerprint() == before, "by its content, not by its time"


@pytest.mark.parametrize(("widget", "told"), [(-1.0, None), (0.0, 0.0), (3.5, 3.5)])
def test_guidance_below_0_is_the_hosts_own(nodes: dict[str, Any], pack: ModuleType, monkeypatch: pytest.MonkeyPatch,
                                           widget: float, told: float | None) -> None:
    """0 is a strength that a model can be told."""
    found: list[float | None] = []
    monkeypatch.setattr(pack_module(pack, "nodes.host.loaded.model"), "open_loaded",
                        lambda model, clip, vae, guidance, progress: found.append(guidance))
    nodes["AtelierLoadedModel"].execute(model=None, clip=None, vae=None, guidance=widget)
    assert found == [told]
