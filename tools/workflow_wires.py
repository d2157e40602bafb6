"""The way of the editor's wires round nodes: where one would run behind a node, points lead it through a gap.

The editor calls such points reroutes. In its format 0.4 they stand in `extra.reroutes`, each with its predecessor on
the way from the source; `extra.linkExtensions` names the last point of each link.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tools.workflow_layout import TITLE, Layout

SOCKET = 20
"""Height of a row of sockets."""
ASIDE = 30
"""How far beside a column its points lie."""
STEEP, TURN = 600, 120
"""The climb between two columns from which on a wire is led upright, and the height of the bends at its ends."""
MARGIN, APART = 10, 9
"""Least distance of a wire from a node, and of two wires from different sockets."""


@dataclass(frozen=True)
class Link:
    """A wire, with its ends' node ids and slots."""

    id: int
    source: int
    output: int
    target: int
    input: int
    kind: str

    def row(self) -> list[Any]:
        """As the editor's format has it."""
        return [self.id, self.source, self.output, self.target, self.input, self.kind]


def reroutes(links: list[Link], layout: Layout, nodes: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The `extra` entries with all wires' points; wires from one socket share points as far as they go together."""
    used: dict[int, list[tuple[float, tuple[int, int]]]] = {column: [] for column in range(len(layout.columns))}
    points: dict[tuple[Any, ...], dict[str, Any]] = {}
    extensions: list[dict[str, int]] = []
    for link in sorted(links, key=lambda link: abs(_column(layout, link.target) - _column(layout, link.source))):
        previous: int | None = None
        for place in _way(link, layout, nodes, used):
            key = (link.source, link.output, previous, *place)
            point = points.setdefault(key, {"id": len(points) + 1, "pos": list(place), "linkIds": [],
                                            **({"parentId": previous} if previous else {})})
            point["linkIds"].append(link.id)
            previous = point["id"]
        if previous:
            extensions.append({"id": link.id, "parentId": previous})
    if not points:
        return {}
    return {"reroutes": list(points.values()), "linkExtensions": sorted(extensions, key=lambda e: e["id"])}


def _way(link: Link, layout: Layout, nodes: dict[int, dict[str, Any]],
         used: dict[int, list[tuple[float, tuple[int, int]]]]) -> list[tuple[float, float]]:
    start, end = _column(layout, link.source), _column(layout, link.target)
    y = _socket(layout, nodes, link.source, link.output, "outputs")
    goal = _socket(layout, nodes, link.target, link.input, "inputs")
    crossed = range(start + 1, end) if end > start else range(start, end - 1, -1)
    socket = (link.source, link.output)
    places: list[tuple[float, float]] = []
    for column in crossed:
        left, right = layout.columns[column]
        y = _gap(layout, column, (y + goal) / 2 if end <= start else y, socket, used[column])
        sides = [(left - ASIDE, y), (right + ASIDE, y)]
        places += sides if end > start else reversed(sides)
    box = layout.boxes[link.source]
    return _upright((box.right, _socket(layout, nodes, link.source, link.output, "outputs")), places,
                    (layout.boxes[link.target].x, goal), lane=link.source + link.output)


def _upright(start: tuple[float, float], places: list[tuple[float, float]], end: tuple[float, float],
             lane: int) -> list[tuple[float, float]]:
    """The same way with points where it climbs far between two columns: the editor's curve would bulge behind them."""
    way: list[tuple[float, float]] = []
    for (x, y), (to_x, to_y) in pairwise([start, *places, end]):
        if (x, y) != start:
            way.append((x, y))
        if abs(to_y - y) > STEEP:
            middle = round((x + to_x) / 2 + APART * (lane % 5 - 2), 1)
            turn = TURN if to_y > y else -TURN
            way += [(middle, round(y + turn, 1)), (middle, round(to_y - turn, 1))]
    return way


def _gap(layout: Layout, column: int, y: float, socket: tuple[int, int],
         used: list[tuple[float, tuple[int, int]]]) -> float:
    """The free height next to y in a column: behind no node, and on no other socket's wire where there is room."""
    shared = [height for height, owner in used if owner == socket]
    left, right = layout.columns[column]
    walls = [(box.y - TITLE - MARGIN, box.bottom + MARGIN) for box in layout.boxes.values()
             if box.x < right + ASIDE and box.right > left - ASIDE]

    def free(at: float, *, alone: bool) -> bool:
        return not any(top < at < bottom for top, bottom in walls) and not (
            alone and any(abs(at - height) < APART for height, owner in used if owner != socket))

    candidates = sorted({y, *shared, *(edge + k * APART for wall in walls for edge in wall for k in range(-6, 7)),
                         *(height + k * APART for height, _ in used for k in (-1, 1))}, key=lambda at: abs(at - y))
    found = next((at for at in shared if free(at, alone=False)), None)
    if found is None:
        found = next((at for at in candidates if free(at, alone=True)), None)
    if found is None:
        found = next(at for at in candidates if free(at, alone=False))
    found = round(found, 1)
    used.append((found, socket))
    return found


def _column(layout: Layout, node: int) -> int:
    x = layout.boxes[node].x
    return next(column for column, (left, _) in enumerate(layout.columns) if left == x)


def _socket(layout: Layout, nodes: dict[int, dict[str, Any]], node: int, slot: int, side: str) -> float:
    """About how high a socket is; one that belongs to a widget is lower."""
    sockets = nodes[node][side]
    row = slot if "widget" not in sockets[slot] else len(sockets)
    return layout.boxes[node].y + SOCKET * (row + 0.7)
