"""Write the README's picture of the training panel: docs/images/training-panel.png.

    python tools/panel_picture.py [--step 200]

Opens the template "Whole pipeline without downloads" in the editor, presses Run, and takes the picture of Train LoRA
when that many steps are done. It needs ComfyUI and Chromium, as the browser tests do.
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

from atelier.demo.folders import DemoFolders, fill_folders  # noqa: E402
from tools.workflows import FOLDER, TITLES  # noqa: E402

PICTURE = ROOT / "docs" / "images" / "training-panel.png"
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
    """Train, take the screenshot, save it."""
    parser = argparse.ArgumentParser(description="Write the README's picture of the training panel.")
    parser.add_argument("--step", type=int, default=200)
    arguments = parser.parse_args()
    graph = json.loads((FOLDER / f"{TITLES['whole_pipeline_without_downloads']}.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        fill_folders(DemoFolders.below(Path(folder)))
        with Host(Path(folder)) as host, browser() as chromium, Editor(chromium, host) as editor:
            editor.page.set_default_timeout(900_000)
            editor.load(graph)
            editor.run()
            wait_for_steps(editor.panel, arguments.step)
            width, height = editor.page.evaluate(PLACE)
            editor.page.wait_for_timeout(1000)
            editor.page.screenshot(path=PICTURE, clip={
                "x": 300 - FRAME, "y": 180 - TITLE - FRAME, "width": width + 2 * FRAME,
                "height": height + TITLE + 2 * FRAME})
            host.interrupt()
    with Image.open(PICTURE) as file:
        few = file.convert("RGB").quantize(128)
    few.save(PICTURE, optimize=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
