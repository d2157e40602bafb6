"""The reference pages say what the code declares: a default that changes is seen."""

from __future__ import annotations

from types import ModuleType

import pytest
from kit.pack import host_samplers, node_classes

from tools.reference import FOLDER, nodes, pages

WRITE = "run: python tools/reference.py"


def test_training_files_and_commands_are_as_declared() -> None:
    for name, text in pages().items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, WRITE


@pytest.mark.host
def test_nodes_are_as_declared(pack: ModuleType) -> None:
    assert (FOLDER / "nodes.md").read_text(encoding="utf-8") == nodes(node_classes(pack), host_samplers()), WRITE
