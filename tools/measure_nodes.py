"""Measure in the editor how high nodes and notes must be, in both of its renderers: tools/node_heights.json.

Each is opened as low as the editor allows, and grows until no text in it is cut; the higher of the two renderers
counts. `tools/workflows.py` runs this.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kit.editor import Editor

FILE = Path(__file__).resolve().parent / "node_heights.json"
LOW = 10.0
"""Lower than any node can be."""
VIEW = {"width": 6000, "height": 2600}
"""A page that shows every node at full size: the editor hides texts that are out of sight."""

ROUNDS = 16
"""At most. What a node grows by is shared by all its texts, so each round gives the one that is cut a part of it."""

CUT = """async () => {
    const frames = async count => { for (; count; count--) await new Promise(requestAnimationFrame); };
    app.canvas.ds.scale = 1;
    const [left, top] = ["0", "1"].map(axis => Math.min(...app.rootGraph.nodes.map(({ pos }) => pos[axis])));
    app.canvas.ds.offset[0] = 100 - left;
    app.canvas.ds.offset[1] = 100 - top;
    app.canvas.setDirty(true, true);
    await frames(4);
    const cut = {};
    for (const node of app.rootGraph.nodes) {
        const parts = [document.querySelector(`[data-node-id="${node.id}"]`),
                       ...(node.widgets ?? []).map(({ element }) => element)].filter(Boolean);
        const texts = parts.flatMap(part => [part, ...part.querySelectorAll("*")])
            .filter(part => part.matches("textarea, .comfy-markdown, .comfy-markdown *, pre, .lg-node-markdown, *"))
            .filter(part => /auto|scroll/.test(getComputedStyle(part).overflowY) || part.matches("textarea"));
        cut[node.id] = Math.max(0, ...texts.map(part => part.scrollHeight - part.clientHeight));
    }
    return cut;
}"""
"""Units of text that are out of sight in each node, by id."""


def measured(editor: Editor, workflow: dict[str, Any]) -> dict[str, float]:
    """The height of each node and note of a graph in the editor's format, by id, in the editor's present renderer."""
    editor.page.set_viewport_size(VIEW)
    heights = {str(node["id"]): LOW for node in workflow["nodes"]}
    for _ in range(ROUNDS):
        editor.load({**workflow, "nodes": [{**node, "size": [node["size"][0], heights[str(node["id"])]]}
                                           for node in workflow["nodes"]]})
        cut = editor.page.evaluate(CUT)
        now = editor.page.evaluate("() => Object.fromEntries(app.rootGraph.nodes.map(n => [n.id, n.size[1]]))")
        grown = {name: math.ceil(now[name] + cut[name]) for name in now}
        if grown == heights:
            break
        heights = grown
    return heights


def read_heights() -> dict[str, dict[str, float]]:
    """The recorded heights, by workflow and node."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def write_heights(heights: dict[str, dict[str, float]]) -> None:
    """Record them."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in heights.items())
    FILE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8", newline="\n")
