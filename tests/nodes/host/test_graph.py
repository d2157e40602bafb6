"""What the host saves with a picture, and when it does not."""

from __future__ import annotations

import json
from types import ModuleType, SimpleNamespace

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


def test_the_hosts_switch_keeps_metadata_out_of_pictures(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy.cli_args import args

    graph = pack_module(pack, "nodes.host.graph")
    node = SimpleNamespace(hidden=SimpleNamespace(prompt={"1": {}}, extra_pnginfo={"workflow": {"id": "w"}}))
    assert graph.metadata(node) == {"prompt": json.dumps({"1": {}}), "workflow": json.dumps({"id": "w"})}
    monkeypatch.setattr(args, "disable_metadata", True)
    assert graph.metadata(node) == {}
