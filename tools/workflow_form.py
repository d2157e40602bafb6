"""A graph in the editor's format (version 0.4) from its API format: nodes with their sockets and values, and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.model_files import models_of
from tools.workflow_layout import Box, Layout
from tools.workflow_wires import Link, reroutes

ROOT = Path(__file__).resolve().parent.parent
CHOICE = "COMFY_DYNAMICCOMBO_V3"
"""What the host calls a choice that brings inputs of its own: "output" brings "output.normalization", …"""
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", CHOICE}
OPTIONAL, LIST = 7, 6
"""The editor's shape numbers: of a socket that may stay empty, and of one that gives a list."""
GROWING, MATCHED = "COMFY_AUTOGROW_V3", "COMFY_MATCHTYPE_V3"
"""What the host calls an input of as many sockets as are linked, and a socket of the type that is linked to it."""


def editor_form(api: dict[str, Any], nodes: dict[str, Any], heights: dict[str, float]) -> dict[str, Any]:
    """A graph in the editor's format.

    Args:
        api: The graph in API format, ids whole numbers as text.
        nodes: The host's `/object_info`.
        heights: Of each node and note, measured by `tools/measure_nodes.py`.
    """
    links: list[Link] = []
    built = [_node(int(name), node, nodes[node["class_type"]], api, nodes, links) for name, node in api.items()]
    by_id = {node["id"]: node for node in built}
    for link in links:
        by_id[link.source]["outputs"][link.output]["links"].append(link.id)
    for order, node in enumerate(sorted(built, key=lambda node: node["id"])):
        node["order"] = order
    layout = Layout.of(api, heights)
    notes = [_note(note, api[str(below)]["_meta"]["note"]) for below, note in layout.notes.items()]
    for node in [*built, *notes]:
        box = layout.boxes[node["id"]]
        node["pos"], node["size"] = [box.x, box.y], [box.width, box.height]
    return {"revision": 0, "last_node_id": max(layout.boxes), "last_link_id": len(links), "nodes": built + notes,
            "links": [link.row() for link in links], "groups": _groups(layout.groups), "config": {},
            "extra": {"ds": layout.view(), **reroutes(links, layout, by_id)}, "version": 0.4}


def _node(number: int, node: dict[str, Any], info: dict[str, Any], api: dict[str, Any], nodes: dict[str, Any],
          links: list[Link]) -> dict[str, Any]:
    inputs: list[dict[str, Any]] = []
    values: list[Any] = []
    for name, spec, optional in specs(info, node["inputs"]):
        kind = "COMBO" if isinstance(spec[0], list) else spec[0]
        options = spec[1] if len(spec) > 1 else {}
        given = node["inputs"].get(name)
        linked = isinstance(given, list)
        widget = kind in WIDGETS and not options.get("forceInput")
        if linked or not widget:
            if kind == MATCHED:
                kind = _matched(node, api, nodes)
            socket: dict[str, Any] = {"name": name, "type": kind, "link": None}
            if "." in name:
                socket["label"] = name.split(".")[1]
            if optional:
                socket["shape"] = OPTIONAL
            if widget:
                socket["widget"] = {"name": name}
            if linked:
                links.append(Link(len(links) + 1, int(given[0]), given[1], number, len(inputs),
                                  _type(given, api, nodes)))
                socket["link"] = len(links)
            inputs.append(socket)
        if widget:
            values.append(_default(spec) if linked else given)
            if options.get("control_after_generate"):
                values.append("fixed")
            if options.get("image_upload"):
                values.append("image")
    outputs = [{"name": name, "type": _type([str(number), slot], api, nodes), "links": [],
                **({"shape": LIST} if is_list else {})}
               for slot, (name, is_list) in enumerate(zip(info["output_name"], info["output_is_list"], strict=True))]
    return {"id": number, "type": node["class_type"], "pos": [], "size": [], "flags": {}, "order": 0, "mode": 0,
            "inputs": inputs, "outputs": outputs, "title": node["_meta"]["title"],
            "properties": _properties(node), "widgets_values": values}


def _properties(node: dict[str, Any]) -> dict[str, Any]:
    """What the editor and ComfyUI-Manager look up: the node's pack, and where the files that it names can be had."""
    properties: dict[str, Any] = {"Node name for S&R": node["class_type"]}
    if node["class_type"].startswith("Atelier"):
        properties |= {"cnr_id": _project("name"), "ver": _project("version")}
    if models := models_of(node):
        properties["models"] = models
    return properties


def _project(key: str) -> str:
    found = re.search(rf'^{key} = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return found[1]


def specs(info: dict[str, Any], given: dict[str, Any]) -> Iterator[tuple[str, list[Any], bool]]:
    """Every input as (name, its definition by the host, optional), in the order of the editor's widgets."""
    for part in ("required", "optional"):
        for name in info["input_order"].get(part, []):
            spec = info["input"][part][name]
            if spec[0] == GROWING:
                yield from _grown(name, spec[1]["template"], given)
                continue
            yield name, spec, part == "optional"
            if spec[0] == CHOICE:
                yield from _chosen(name, spec[1]["options"], given)


def _grown(name: str, template: dict[str, Any], given: dict[str, Any]) -> Iterator[tuple[str, list[Any], bool]]:
    """The linked sockets of a growing input and one free one, as the editor shows it."""
    (spec,) = next(part for part in template["input"].values() if part).values()
    names = template.get("names") or [f"{template['prefix']}{number}" for number in range(template["max"])]
    count = sum(f"{name}.{part}" in given for part in names)
    for number, part in enumerate(names[:count + 1]):
        yield f"{name}.{part}", spec, number >= template["min"]


def _chosen(name: str, options: list[dict[str, Any]], given: dict[str, Any]) -> Iterator[tuple[str, list[Any], bool]]:
    """The inputs that belong to the chosen option."""
    inputs = next(option["inputs"] for option in options if option["key"] == given[name])
    for part in ("required", "optional"):
        for inner, spec in inputs.get(part, {}).items():
            yield f"{name}.{inner}", spec, part == "optional"


def _type(source: list[Any], api: dict[str, Any], nodes: dict[str, Any]) -> str:
    """The type of a node's output, where `source` is [the node's id, the output's index]."""
    node = api[source[0]]
    kind = nodes[node["class_type"]]["output"][source[1]]
    return _matched(node, api, nodes) if kind == MATCHED else kind


def _matched(node: dict[str, Any], api: dict[str, Any], nodes: dict[str, Any]) -> str:
    """The type that a node's matching sockets take from the first of them that is linked."""
    return next(_type(given, api, nodes) for name, given in node["inputs"].items()
                if "." in name and isinstance(given, list))


def _default(spec: list[Any]) -> Any:
    options = spec[1] if len(spec) > 1 else {}
    empty = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False, "COMBO": ""}
    return options.get("default", empty.get(spec[0]) if isinstance(spec[0], str) else spec[0][0])


def _note(number: int, text: str) -> dict[str, Any]:
    return {"id": number, "type": "MarkdownNote", "pos": [], "size": [], "flags": {}, "order": number - 1, "mode": 0,
            "inputs": [], "outputs": [], "title": "Note", "properties": {}, "widgets_values": [text], "color": "#432",
            "bgcolor": "#653"}


def _groups(boxes: dict[str, Box]) -> list[dict[str, Any]]:
    return [{"id": index, "title": title, "bounding": [box.x, box.y, box.width, box.height], "color": "#3f789e",
             "font_size": 24, "flags": {}} for index, (title, box) in enumerate(boxes.items(), 1)]
