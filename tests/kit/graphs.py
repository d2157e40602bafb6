"""Graphs in the form of the queue API, written briefly: what is not given takes the node's own default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kit.host import Host


class Graph:
    """Nodes by id: `Graph(load=("CheckpointLoaderSimple", {"ckpt_name": "a"}), text=("CLIPTextEncode", {…}))`."""

    def __init__(self, **nodes: tuple[str, dict[str, Any]]) -> None:
        self.nodes = nodes

    def change(self, node: str, **inputs: Any) -> Graph:
        """Set inputs of a node; returns the graph."""
        self.nodes[node][1].update(inputs)
        return self

    def fill(self, host: Host) -> dict[str, Any]:
        """The API form, every missing widget at the default the host states, as the editor would send it."""
        return {name: {"class_type": kind, "inputs": {**host.defaults(kind), **inputs}}
                for name, (kind, inputs) in self.nodes.items()}


def load_graph(path: Path) -> dict[str, Any]:
    """A workflow file in API form."""
    return json.loads(path.read_text(encoding="utf-8"))
