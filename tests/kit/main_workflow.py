"""The workflow that a person meets first, made to fit a small model and a short test, in the editor."""

from __future__ import annotations

import json
import time
from typing import Any

from kit.editor import Editor
from kit.host import Host
from kit.shapes import draw_shapes

from tools.workflows import FOLDER, TITLES, read_api

MAIN = TITLES["finetune_then_generate"]
CHECKPOINT: str = read_api("finetune_then_generate")["1"]["inputs"]["checkpoint"]
TRAINER, SAVED = 4, 20
PICTURES = "editor"
SMALL = [(2, "folder", PICTURES), (2, "resolution", 64), (3, "learning_rate", 3e-3), (3, "schedule", "constant"),
         (3, "sample_every", 8), (3, "sample_steps", 1), (3, "validate_every", 8), (3, "patience", 0),
         (15, "steps", 2), (16, "steps", 2), (14, "width", 64), (14, "height", 64)]


def supply(host: Host) -> None:
    """The pictures that it trains on. The checkpoint is the fixture's, under the name `CHECKPOINT`."""
    draw_shapes(host.base / "input" / PICTURES, count=5)


def main_workflow() -> dict[str, Any]:
    """The shipped workflow in the editor's format."""
    return json.loads((FOLDER / f"{MAIN}.json").read_text(encoding="utf-8"))


def make_small(editor: Editor, name: str, steps: int, seed: int) -> None:
    """Change widgets of the loaded graph; another seed or number of steps is another training."""
    for node, widget, value in [*SMALL, (TRAINER, "name", name), (TRAINER, "length", steps), (TRAINER, "seed", seed)]:
        editor.set_widget(node, widget, value)


def ended(host: Host, prompt: str) -> dict[str, Any]:
    """Wait for the end of a prompt; its history."""
    end = time.monotonic() + 600
    while prompt not in (history := host.get_json(f"/history/{prompt}")):
        assert time.monotonic() < end
        time.sleep(0.2)
    return history[prompt]
