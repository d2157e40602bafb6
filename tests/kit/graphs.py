"""Graphs in the format of the queue API; widgets that are not given have the node's own default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kit.host import Host

FIRST_RELEASE = Path(__file__).parents[1] / "data" / "workflows_0.1"
"""Workflows as the first release shipped them, for the editor and (`.api.json`) for the queue."""


class Graph:
    """Nodes by id: `Graph(load=("CheckpointLoaderSimple", {"ckpt_name": "a"}), text=("CLIPTextEncode", {…}))`."""

    def __init__(self, **nodes: tuple[str, dict[str, Any]]) -> None:
        self.nodes = nodes

    def change(self, node: str, **inputs: Any) -> Graph:
        """Set inputs of a node; returns the graph."""
        self.nodes[node][1].update(inputs)
        return self

    def fill(self, host: Host) -> dict[str, Any]:
        """The graph in API format; missing widgets get the host's default, as in the editor."""
        return {name: {"class_type": kind, "inputs": {**host.defaults(kind), **inputs}}
                for name, (kind, inputs) in self.nodes.items()}


def load_graph(path: Path) -> dict[str, Any]:
    """A workflow file of the editor or of the queue."""
    return json.loads(path.read_text(encoding="utf-8"))
