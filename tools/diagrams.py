"""Draw the thumbnails of workflows that the demo's small model cannot run: their nodes, groups and wires.

    python tools/diagrams.py [NAME …]

Without names, those that have no picture yet are drawn too.
Each has its title above, and says "diagram" in its corner, so that nobody takes it for a result. `tools/thumbnails.py`
runs the other workflows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from PIL import Image, ImageDraw  # noqa: E402 - the path is set just above

from atelier.pictures.labels import font_size, strip  # noqa: E402
from tools.workflow_layout import TITLE  # noqa: E402

SIZE = (384, 216)
FINE = 3
"""Drawn so many times larger, and made smaller then, for smooth lines."""
MARGIN = 8
PAPER, GROUP, NODE, OURS, NOTE, INK, FAINT = ((24, 26, 32), (38, 50, 64), (86, 91, 102), (47, 124, 200), (102, 85, 51),
                                              (240, 240, 236), (168, 172, 180))
HEAD, LABEL = 30, 26
"""Heights of the title and of a group's label in pixels; the label stands above the group, in up to two lines."""
LARGEST = 20
"""Font size of the title at most."""
NODE_FONT = 10
STRETCH = 2.5
"""How much wider than high a graph may be drawn, at most, to fill the picture."""
NAMED = (30, 11)
"""Least size in pixels of a node that is named: nothing could be read in a smaller one."""


def diagram(title: str, workflow: dict[str, Any]) -> Image.Image:
    """A picture of a graph in the editor's format, below its title: blue nodes are the pack's own, brown ones notes."""
    boxes = [group["bounding"] for group in workflow["groups"]]
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    width = max(box[0] + box[2] for box in boxes) - left
    height = max(box[1] + box[3] for box in boxes) - top
    above = HEAD + LABEL
    wide, high = FINE * (SIZE[0] - 2 * MARGIN), FINE * (SIZE[1] - 2 * MARGIN - above)
    down = min(wide / width, high / height)
    across = min(wide / width, STRETCH * down)
    shift = (FINE * MARGIN + (wide - across * width) / 2, FINE * above + (high - down * height) / 2)

    def at(x: float, y: float) -> tuple[float, float]:
        return shift[0] + across * (x - left), shift[1] + down * (y - top)

    picture = Image.new("RGB", (FINE * SIZE[0], FINE * SIZE[1]), PAPER)
    pen = ImageDraw.Draw(picture)
    for x, y, w, h in boxes:
        pen.rounded_rectangle((*at(x, y), *at(x + w, y + h)), 2 * FINE, GROUP)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for _, source, output, target, entry, _ in workflow["links"]:
        start, end = nodes[source], nodes[target]
        rows = [(slot + 0.7) * 20 for slot in (output, entry)]
        _wire(pen, at(start["pos"][0] + start["size"][0], start["pos"][1] + rows[0]),
              at(end["pos"][0], end["pos"][1] + rows[1]))
    for node in workflow["nodes"]:
        (x, y), (w, h) = node["pos"], node["size"]
        colour = OURS if node["type"].startswith("Atelier") else NOTE if node["type"] == "MarkdownNote" else NODE
        pen.rounded_rectangle((*at(x, y - TITLE), *at(x + w, y + h)), 2 * FINE, colour)
    small = picture.resize(SIZE, Image.Resampling.LANCZOS)
    def inside(x: float, y: float, w: float, h: float) -> tuple[int, int, int, int]:
        (a, b), (c, d) = (tuple(round(part / FINE) for part in at(*corner)) for corner in ((x, y), (x + w, y + h)))
        return a, b, c - a, d - b

    for node in workflow["nodes"]:
        (x, y), (w, h) = node["pos"], node["size"]
        left_, top_, wide_, high_ = inside(x, y - TITLE, w, h + TITLE)
        if node["type"] != "MarkdownNote" and wide_ >= NAMED[0] and high_ >= NAMED[1]:
            name = strip(node.get("title") or node["type"], wide_ - 2, min(high_ - 2, 34), ink=INK,
                         paper=OURS if node["type"].startswith("Atelier") else NODE, largest=NODE_FONT)
            small.paste(name, (left_ + 1, top_ + 1))
    places = [inside(*box) for box in boxes]
    largest = min(font_size(group["title"], place[2], LABEL)
                  for place, group in zip(places, workflow["groups"], strict=True))
    for (left_, top_, wide_, _), group in zip(places, workflow["groups"], strict=True):
        label = strip(group["title"], wide_, LABEL, ink=FAINT, paper=PAPER, largest=largest)
        small.paste(label, (left_, top_ - LABEL))
    small.paste(strip(title, SIZE[0], HEAD, ink=INK, paper=PAPER, largest=LARGEST), (0, 0))
    mark = strip("diagram", 60, 14, ink=FAINT, paper=PAPER)
    small.paste(mark, (SIZE[0] - 62, SIZE[1] - 15))
    return small


def _wire(pen: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float]) -> None:
    bend = max(20.0, abs(end[0] - start[0]) / 2)
    points = []
    for part in range(25):
        t = part / 24
        shares = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t ** 2, t ** 3)
        controls = (start, (start[0] + bend, start[1]), (end[0] - bend, end[1]), end)
        points.append(tuple(sum(share * control[axis] for share, control in zip(shares, controls, strict=True))
                            for axis in (0, 1)))
    pen.line(points, FAINT, FINE)


def main() -> int:
    """Write those that are named, or that cannot be made by running and those that have not been yet."""
    from tools.thumbnails import suited, write
    from tools.workflows import FOLDER, TITLES

    names = sys.argv[1:]
    for name, title in TITLES.items():
        path = FOLDER / f"{title}.jpg"
        if name in names if names else not suited(name) or not path.exists():
            shown = title.partition(" - ")[0].partition(" ")[2]
            write(diagram(shown, json.loads((FOLDER / f"{title}.json").read_text(encoding="utf-8"))), path)
            print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
