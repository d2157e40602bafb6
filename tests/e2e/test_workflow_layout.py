"""How the shipped workflows lie in the editor, measured before and after a run: all of them in its newer renderer, and
in the older one as many as have every kind of node among them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import combinations

import pytest
from kit.editor import Editor
from kit.host import Host
from kit.named_files import named_files
from playwright.sync_api import Browser

from tools.measure_nodes import CUT, VIEW
from tools.workflow_layout import READABLE, TEXT_ROOM
from tools.workflows import FOLDER, TITLES

pytestmark = [pytest.mark.host, pytest.mark.browser, pytest.mark.slow]

RECTANGLES = """() => app.rootGraph.nodes.map(node => {
    const element = document.querySelector(`[data-node-id="${node.id}"]`);
    const [, , width, height] = node.boundingRect, [x, y] = node.boundingRect;
    return { id: node.id, type: node.type, x, y, width: element ? element.offsetWidth : width,
             height: element ? element.offsetHeight : height };
})"""
"""Nodes with their title bars."""
WIRES_BEHIND = """() => {
    const pen = document.createElement("canvas").getContext("2d");
    pen.lineWidth = 6;
    const graph = app.rootGraph, found = [];
    const links = [...graph.links.values()];
    const parts = links.map(link => {
        const parent = link.parentId === undefined ? undefined : graph.reroutes.get(link.parentId);
        return { path: link.path, ends: [link.origin_id, link.target_id], what: `link ${link.id}`,
                 from: parent ? parent.pos : graph.getNodeById(link.origin_id).getOutputPos(link.origin_slot),
                 to: graph.getNodeById(link.target_id).getInputPos(link.target_slot) };
    });
    for (const reroute of graph.reroutes.values()) {
        const link = graph.links.get([...reroute.linkIds][0]);
        const parent = reroute.parentId === undefined ? undefined : graph.reroutes.get(reroute.parentId);
        parts.push({ path: reroute.path, ends: [], what: `point ${reroute.id}`, to: reroute.pos,
                     from: parent ? parent.pos : graph.getNodeById(link.origin_id).getOutputPos(link.origin_slot) });
    }
    for (const { path, ends, what, from, to } of parts) {
        if (!path) { found.push(`${what} is not drawn`); continue; }
        const around = 150;
        const [left, right] = [Math.min(from[0], to[0]) - around, Math.max(from[0], to[0]) + around];
        const [top, bottom] = [Math.min(from[1], to[1]), Math.max(from[1], to[1])];
        for (const node of graph.nodes) {
            const [x, y, width, height] = node.boundingRect;
            if (x > right || x + width < left || y > bottom || y + height < top || ends.includes(node.id)) continue;
            const behind = [0.2, 0.5, 0.8].some(share => {
                for (let at = y + 3; at < y + height - 3; at += 5) {
                    if (pen.isPointInStroke(path, x + share * width, at)) return true;
                }
                return false;
            });
            if (behind) found.push(`${what} behind node ${node.id}`);
        }
    }
    return found;
}"""
"""Wires that cross a node which is not at one of their ends, on one of three upright lines through it."""
FINISH = """([texts, pixel]) => {
    const text = Array.from({ length: 18 }, (_, row) => `row ${row} of a result`);
    const pictured = ["AtelierBlockGrid", "AtelierImageFolder"];
    for (const node of app.rootGraph.nodes.filter(({ comfyClass }) => texts.includes(comfyClass))) {
        node.onExecuted({
            text: [text.join("\\n")],
            bars: node.comfyClass === "AtelierCLIPScore" ? text.map((label, value) => ({ label, value })) : undefined,
            images: pictured.includes(node.comfyClass) ? [pixel] : undefined,
            cells: node.comfyClass === "AtelierBlockGrid" ? [{ x: 0, y: 0, width: 1, height: 1 }] : undefined,
        });
    }
}"""
"""Give nodes the output of a run."""
TEXTS = [*TEXT_ROOM, "AtelierBlockGrid", "AtelierImageFolder", "AtelierCompareModels", "AtelierTokens"]
WORKFLOWS = {name: json.loads((FOLDER / f"{title}.json").read_text(encoding="utf-8"))
             for name, title in TITLES.items()}
TEMPLATES_A_PAGE = 12
LEAST_RESULT = 120
"""Seven lines of a result."""
PIXEL = {"filename": "x.png", "subfolder": "", "type": "temp"}
RESULTS_SHOWN = """() => [...document.querySelectorAll(".atelier-result-frame")]
    .filter(frame => frame.checkVisibility()).map(frame => frame.clientHeight)"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One of its own: a renderer that was chosen once stays chosen."""
    with Host(tmp_path_factory.mktemp("layout")) as running, named_files(running.base):
        yield running


def with_every_kind() -> list[str]:
    """Few workflows that have each kind of node somewhere."""
    kinds = {name: {node["type"] for node in workflow["nodes"]} for name, workflow in WORKFLOWS.items()}
    chosen, missing = [], set[str]().union(*kinds.values())
    while missing:
        chosen.append(max(kinds, key=lambda name: len(kinds[name] & missing)))
        missing -= kinds[chosen[-1]]
    return chosen


RENDERERS = {"classic": with_every_kind(), "vue": list(WORKFLOWS)}


@pytest.fixture(scope="module")
def open_editor(chromium: Browser, host: Host) -> Iterator[Callable[[str], Editor]]:
    """Gives a renderer's page, and another one after some templates: it keeps memory of all that it ever opened."""
    opened: dict[str, Editor] = {}
    uses = Counter[str]()
    with ExitStack() as page:
        def give(renderer: str) -> Editor:
            if uses[renderer] % TEMPLATES_A_PAGE == 0:
                page.close()
                host.post("/settings/Comfy.VueNodes.Enabled", renderer == "vue")
                opened[renderer] = page.enter_context(Editor(chromium, host))
            uses[renderer] += 1
            return opened[renderer]
        yield give


@pytest.fixture
def editor(open_editor: Callable[[str], Editor], renderer: str) -> Editor:
    return open_editor(renderer)


@pytest.mark.parametrize(("renderer", "name"), [(renderer, name) for renderer, names in RENDERERS.items()
                                                for name in names])
def test_a_template_opens_readable_with_nothing_over_anything(editor: Editor, name: str) -> None:
    workflow = WORKFLOWS[name]
    editor.page.set_viewport_size(VIEW)
    editor.load(workflow)
    scale, offset = editor.page.evaluate("() => [app.canvas.ds.scale, [...app.canvas.ds.offset]]")
    written = workflow["extra"]["ds"]
    assert [scale, *offset] == pytest.approx([written["scale"], *written["offset"]]), "the editor moved the view"
    assert scale >= READABLE
    cut = editor.page.evaluate(CUT)
    assert not {number: missing for number, missing in cut.items() if missing > 1}, "text is cut"
    assert overlaps(editor) == []
    assert outside_their_groups(editor) == []
    assert editor.page.evaluate(WIRES_BEHIND) == []
    editor.page.evaluate(FINISH, [TEXTS, PIXEL])
    editor.page.evaluate(SETTLE)
    assert overlaps(editor) == [], "once results are there"
    assert outside_their_groups(editor) == []
    shown = editor.page.evaluate(RESULTS_SHOWN)
    assert len(shown) == sum(node["type"] in TEXTS for node in workflow["nodes"])
    assert all(height >= LEAST_RESULT for height in shown), f"a result is squeezed: {shown}"


SETTLE = """async () => {
    for (let frame = 0; frame < 6; frame++) {
        app.canvas.setDirty(true, true);
        await new Promise(requestAnimationFrame);
    }
}"""
"""Let sizes that follow from other sizes arrive."""


def overlaps(editor: Editor) -> list[tuple[int, int]]:
    """Pairs of nodes that lie over each other."""
    nodes = editor.page.evaluate(RECTANGLES)
    return [(a["id"], b["id"]) for a, b in combinations(nodes, 2)
            if a["x"] < b["x"] + b["width"] and b["x"] < a["x"] + a["width"]
            and a["y"] < b["y"] + b["height"] and b["y"] < a["y"] + a["height"]]


def outside_their_groups(editor: Editor) -> list[int]:
    """Nodes that are not wholly in one group."""
    groups = editor.page.evaluate("() => app.rootGraph.groups.map(({ boundingRect }) => [...boundingRect])")
    return [node["id"] for node in editor.page.evaluate(RECTANGLES) if not any(
        x <= node["x"] and node["x"] + node["width"] <= x + width
        and y <= node["y"] and node["y"] + node["height"] <= y + height for x, y, width, height in groups)]
