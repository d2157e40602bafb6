"""Write the README's pictures of the editor: docs/images/editor.png and training-panel.png.

    python tools/panel_picture.py [--step 300]

Opens the template "Try it without downloads" in the editor, presses Run, and when that many steps are done takes the
pictures of the whole editor and of Train LoRA. It needs ComfyUI and Chromium, as the browser tests do.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "tests"), str(ROOT)]

from kit.editor import Editor, browser  # noqa: E402 - the path is set just above
from kit.host import Host  # noqa: E402
from kit.panel import wait_for_steps  # noqa: E402
from PIL import Image  # noqa: E402

from tools.workflows import FOLDER, TITLES  # noqa: E402

WHOLE = ROOT / "docs" / "images" / "editor.png"
PANEL = ROOT / "docs" / "images" / "training-panel.png"
VIEW, HIGH = {"width": 1600, "height": 900}, {"width": 1600, "height": 1100}
"""Of the whole editor, and of the trainer alone."""
FILE = TITLES["try_it_without_downloads"]
NAME = FILE.partition(" - ")[0]
FIT = """() => {
    const boxes = app.rootGraph.groups.map(group => group.boundingRect), { ds } = app.canvas;
    const [left, top] = [0, 1].map(axis => Math.min(...boxes.map(box => box[axis])));
    const [right, bottom] = [0, 1].map(axis => Math.max(...boxes.map(box => box[axis] + box[axis + 2])));
    // The editor's own bars are at the left and above.
    ds.scale = Math.min((innerWidth - 100) / (right - left), (innerHeight - 190) / (bottom - top));
    ds.offset[0] = (innerWidth + 50 - (right - left) * ds.scale) / 2 / ds.scale - left;
    ds.offset[1] = 180 / ds.scale - top;
    app.canvas.setDirty(true, true);
}"""
"""Moves the view so that the whole graph is seen."""
PLACE = """() => {
    const node = app.rootGraph.nodes.find(node => node.type === 'AtelierTrainLora'), { ds } = app.canvas;
    ds.scale = 1;
    ds.offset[0] = 300 - node.pos[0];
    ds.offset[1] = 180 - node.pos[1];
    app.canvas.setDirty(true, true);
    return [...node.size];
}"""
"""Moves the view to the trainer, clear of the editor's own buttons; returns its size."""
FRAME = 14
"""Pixels around the node."""
TITLE = 30
"""Height of a node's title in pixels; positions begin below it."""


def main() -> int:
    """Train, take the screenshots, save them."""
    parser = argparse.ArgumentParser(description="Write the README's pictures of the editor.")
    parser.add_argument("--step", type=int, default=300)
    arguments = parser.parse_args()
    graph = json.loads((FOLDER / f"{FILE}.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, Host(Path(folder)) as host, browser() as chromium:
        host.post("/settings/Comfy.Minimap.Visible", False)
        with Editor(chromium, host) as editor:
            page = editor.page
            page.set_viewport_size(VIEW)
            page.set_default_timeout(900_000)
            page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [graph, NAME])
            page.evaluate("app.canvas.show_info = false")
            editor.run()
            wait_for_steps(editor.panel, arguments.step)
            page.evaluate(FIT)
            page.wait_for_timeout(1000)
            page.screenshot(path=WHOLE)
            page.set_viewport_size(HIGH)
            page.wait_for_timeout(1000)
            width, height = page.evaluate(PLACE)
            page.wait_for_timeout(1000)
            page.screenshot(path=PANEL, clip={"x": 300 - FRAME, "y": 180 - TITLE - FRAME, "width": width + 2 * FRAME,
                                              "height": height + TITLE + 2 * FRAME})
            host.interrupt()
    for picture, colours in ((WHOLE, 256), (PANEL, 128)):
        with Image.open(picture) as file:
            few = file.convert("RGB").quantize(colours)
        few.save(picture, optimize=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
