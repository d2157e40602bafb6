"""Where the editor's nodes stand: columns of nodes that touch no other, notes below their nodes, groups around them.

In a workflow's API form, `_meta.pos` says roughly where a node stands: its column, and its place among those above and
below it. From measured heights this module works out exact places. A node's box is its body; its title bar lies above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TITLE = 30
"""Height of a node's title bar, in the editor's units as everything here."""
WIDTH, COLUMN_GAP, ROW_GAP = 320, 130, 40
"""A node's width where its `_meta.size` gives none, and free space between columns and between the nodes of one."""
GROUP_SIDE, GROUP_TOP, GROUP_BOTTOM = 25, 80, 25
"""How far a group reaches beyond its nodes with their title bars."""
GROUP_GAP = 30
SAME_COLUMN = 200
"""Nodes whose rough places are less apart stand in one column."""
TEXT_ROOM = dict.fromkeys((
    "AtelierAddPromptExample", "AtelierCheckTrigger", "AtelierCLIPScore", "AtelierConvertCheckpoint",
    "AtelierConvertLora", "AtelierDemoModel", "AtelierExportCheckpoint", "AtelierRandomArtPrompts",
    "AtelierReadPrompt", "AtelierRestoreFaces", "AtelierWritePrompt"), 165)
ROOM = {
    **TEXT_ROOM, "AtelierConvertCheckpoint": 215, "AtelierTrainLora": 30, "AtelierBlockGrid": 325,
    "AtelierImageFolder": 205, "AtelierCompareModels": 485, "AtelierTokens": 465, "AtelierDenoisingSteps": 260,
    "AtelierSaveTitled": 260, "PreviewImage": 300, "SaveImage": 340, "LoadImage": 200, "LoadImageMask": 200,
}
"""Room that a node's result takes once it has run, by class; web/js/atelier.js has the heights of the pack's own."""
BARS = (75, 100)
"""Pixels at the left and at the top that the editor's own bars cover."""
SCREEN = (1920 - BARS[0] - 15, 1080 - BARS[1] - 15)
"""What a 1920 × 1080 screen shows of a graph."""
READABLE = 0.6
"""The least scale at which widgets can be read."""


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


@dataclass(frozen=True)
class Layout:
    """Boxes of nodes and notes by id, of groups by title, and the horizontal span of each column."""

    boxes: dict[int, Box]
    notes: dict[int, int]
    """The id of the note below a node, by the node's."""
    groups: dict[str, Box]
    columns: list[tuple[float, float]]

    @classmethod
    def of(cls, api: dict[str, Any], heights: dict[str, float]) -> Layout:
        """Place the nodes of a graph in API format.

        Args:
            heights: By the id of each node and note, without room for results.
        """
        noted = [int(name) for name, node in api.items() if "note" in node["_meta"]]
        notes = dict(zip(noted, range(max(map(int, api)) + 1, len(noted) + max(map(int, api)) + 1), strict=True))
        rough = {int(name): node["_meta"]["pos"] for name, node in api.items()}
        column_of = _columns({x for x, _ in rough.values()})
        widths = {int(name): node["_meta"].get("size", [WIDTH])[0] for name, node in api.items()}
        rooms = {int(name): ROOM.get(node["class_type"], 0) for name, node in api.items()}

        spans: list[tuple[float, float]] = []
        left = 0.0
        for column in range(max(column_of.values()) + 1):
            width = max(widths[n] for n, (x, _) in rough.items() if column_of[x] == column)
            spans.append((left, left + width))
            left += width + COLUMN_GAP

        members: dict[str, list[int]] = {}
        for name, node in api.items():
            members.setdefault(node["_meta"]["group"], []).append(int(name))
        boxes: dict[int, Box] = {}
        groups: dict[str, Box] = {}
        for title in sorted(members, key=lambda title: min(rough[n][1] for n in members[title])):
            inside = sorted(members[title], key=lambda n: rough[n][1])
            columns = {column_of[rough[n][0]] for n in inside}
            first, last = spans[min(columns)][0] - GROUP_SIDE, spans[max(columns)][1] + GROUP_SIDE
            top = max((box.bottom + GROUP_GAP for box in groups.values() if box.x < last and box.right > first),
                      default=0.0)
            free = dict.fromkeys(columns, top + GROUP_TOP + TITLE)
            for n in inside:
                column = column_of[rough[n][0]]
                x = spans[column][0]
                boxes[n] = Box(x, free[column], widths[n], heights[str(n)] + rooms[n])
                free[column] = boxes[n].bottom + ROW_GAP + TITLE
                if n in notes:
                    boxes[notes[n]] = Box(x, free[column], widths[n], heights[str(notes[n])])
                    free[column] = boxes[notes[n]].bottom + ROW_GAP + TITLE
            bottom = max(free.values()) - ROW_GAP - TITLE + GROUP_BOTTOM
            groups[title] = Box(first, top, last - first, bottom - top)
        return cls(boxes, notes, {title: groups[title] for title in members}, spans)

    def view(self) -> dict[str, Any]:
        """Scale and offset at which the editor opens: all of the graph if it can be read then, or its start."""
        whole = _around(list(self.groups.values()))
        scale = min(1.0, SCREEN[0] / whole.width, SCREEN[1] / whole.height)
        scale = max(READABLE, round(scale, 3))
        return {"scale": scale, "offset": [round(BARS[0] / scale - whole.x, 1), round(BARS[1] / scale - whole.y, 1)]}


def _columns(xs: set[float]) -> dict[float, int]:
    """The column of each rough horizontal place."""
    found: dict[float, int] = {}
    start, column = float("-inf"), -1
    for x in sorted(xs):
        if x - start >= SAME_COLUMN:
            start, column = x, column + 1
        found[x] = column
    return found


def _around(boxes: list[Box]) -> Box:
    left, top = min(box.x for box in boxes), min(box.y for box in boxes)
    return Box(left, top, max(box.right for box in boxes) - left, max(box.bottom for box in boxes) - top)
