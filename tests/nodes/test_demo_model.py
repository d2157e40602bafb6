"""Demo Model: it runs again when what it wrote is gone, and only then."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


def test_files_that_were_deleted_are_written_again(nodes: dict[str, Any], pack: ModuleType,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """The host would take the names of the deleted files from its cache."""
    module, there = pack_module(pack, "nodes.demo_model"), [False]
    monkeypatch.setattr(module, "_presence", module._Presence())
    demo = pack_module(pack, "atelier.demo.folders").DemoFolders
    monkeypatch.setattr(demo, "complete", lambda self: there[0])
    fingerprint = nodes["AtelierDemoModel"].fingerprint_inputs
    assert fingerprint() == fingerprint() == 0, "before the first run nothing is lost"
    module._presence.written, there[0] = True, True
    assert fingerprint() == 0
    there[0] = False
    assert fingerprint() == fingerprint() == 1, "it counted one loss twice"
    module._presence.written, there[0] = True, True
    assert fingerprint() == 1
    there[0] = False
    assert fingerprint() == 2
