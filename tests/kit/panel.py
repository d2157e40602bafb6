"""The training panel in a real browser: read its curve and numbers, check its layout and accessibility."""

from __future__ import annotations

import re
import time
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from kit.editor import Editor
from playwright.sync_api import Locator


def steps_drawn(panel: Locator) -> int:
    """The number of steps that the curve covers by its label."""
    found = re.search(r"over (\d+) steps", panel.locator("canvas").first.get_attribute("aria-label") or "")
    return int(found[1]) if found else 0


def wait_for_steps(panel: Locator, count: int) -> int:
    """Wait until the curve covers `count` steps; return how many it covers."""
    end = time.monotonic() + 300
    while (seen := steps_drawn(panel)) < count:
        assert time.monotonic() < end, f"{seen} steps: {panel.inner_text()}"
        time.sleep(0.1)
    return seen


def check_time_left(panel: Locator) -> None:
    """Check that "Time left" is the remaining steps divided by the speed shown beside it."""
    position, speed, left = panel.evaluate("""panel =>
        [".atelier-position", "[data-value=pace]", "[data-value=left]"].map(part => panel.querySelector(part).innerText)
    """)
    step, steps = map(int, re.findall(r"step (\d+) of (\d+)", position)[0])
    number, unit = speed.split()
    lowest, highest = float(number) - 0.051, float(number) + 0.051  # it is rounded
    quickest, slowest = (1 / highest, 1 / lowest) if unit == "it/s" else (lowest, highest)
    *hours, minutes, seconds = map(int, left.split(":"))
    shown = 3600 * sum(hours) + 60 * minutes + seconds
    assert (steps - step) * quickest - 0.51 <= shown <= (steps - step) * slowest + 0.51, (position, speed, left)


def curve_width(panel: Locator) -> float:
    """The fraction of the canvas' width that the smoothed curve covers, judged by its pixels."""
    return panel.locator("canvas").first.evaluate("""canvas => {
        const { width, height } = canvas;
        const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
        const columns = new Set();
        for (let i = 0; i < pixels.length; i += 4) {
            // Strong blue: no other line has it.
            if (pixels[i + 3] > 200 && pixels[i + 2] > 150 && pixels[i] < 110) columns.add((i / 4) % width);
        }
        return columns.size / width;
    }""")


ALONE = """panel => {
    const { offsetWidth: width, offsetHeight: height } = panel;
    const frame = document.createElement("div");
    frame.style = `position: fixed; left: 0; top: 0; width: ${width}px; height: ${height}px`;
    frame.home = panel.parentNode;
    for (const element of document.body.children) element.style.visibility = "hidden";
    document.body.append(frame);
    frame.append(panel);
}"""
BACK = """panel => {
    const frame = panel.parentNode;
    frame.home.append(panel);
    frame.remove();
    for (const element of document.body.children) element.style.visibility = "";
}"""


def faults(editor: Editor, panel: Locator) -> list[str]:
    """The accessibility faults that axe-core finds in the panel, including contrast that it cannot determine.

    It cannot determine contrast where layers lie above or below the text, as the editor's do; so they are hidden.
    """
    panel.evaluate(ALONE)
    try:
        found = Axe().run(editor.page, context=".atelier-panel").response
    finally:
        panel.evaluate(BACK)
    judged = {rule["id"] for rule in found["passes"] + found["violations"]}
    assert {"color-contrast", "button-name"} <= judged, judged
    unknown = [fault for fault in found["incomplete"] if fault["id"] == "color-contrast"]
    return [f"{fault['id']}: {node['html'][:200]} {node['failureSummary']}"
            for fault in found["violations"] + unknown for node in fault["nodes"]]


def wait_for_zoom(editor: Editor, panel: Locator, zoom: float) -> None:
    """Wait until the page shows the panel at that zoom, with the latest news drawn."""
    editor.page.wait_for_function("([panel, zoom]) => Math.abs(panel.getBoundingClientRect().width / panel.offsetWidth "
                                  "- zoom) < 0.005", arg=[panel.element_handle(), zoom])
    # The panel draws on the next frame; that can hide elements, which changes the curve's size on the one after.
    editor.page.evaluate("""async () => {
        for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
    }""")


def cut_off(panel: Locator) -> list[str]:
    """Texts, buttons and numbers that overflow the panel or their own box."""
    return panel.evaluate("""panel => {
        const frame = panel.getBoundingClientRect();
        return [...panel.querySelectorAll("strong, span, li, dt, dd, button, p")].filter(element => {
            const box = element.getBoundingClientRect();
            if (!box.width || element.closest(".atelier-samples")) return false;
            return element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "inline"
                || box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
        }).map(element => element.textContent);
    }""")


def smallest_text(panel: Locator) -> float:
    """The smallest font size in screen pixels, including the page's zoom."""
    return panel.evaluate("""panel => {
        const scale = panel.getBoundingClientRect().width / panel.offsetWidth;
        const sizes = [...panel.querySelectorAll("*")].filter(element => element.textContent && element.offsetWidth)
            .map(element => parseFloat(getComputedStyle(element).fontSize));
        return scale * Math.min(...sizes);
    }""")


def session(workflow: str, node: str, **changes: Any) -> dict[str, Any]:
    """The server's news of a training in step 240 of 1200."""
    losses = [[step, 0.1 + 0.2 * 0.99 ** step + 0.02 * (step % 3)] for step in range(1, 241)]
    return {
        "prompt": "made", "node": node, "workflow": workflow, "run": "made", "number": 1, "status": "running",
        "message": "", "phase": {"name": "training", "done": 240, "total": 1200}, "losses": losses,
        "validation": losses[19::20], "fidelity": [], "likeness": [], "samples": [80, 160, 240], "can_sample": True,
        "stopping": False, "sample_asked": False, "values": {
            "step": 240, "steps": 1200, "epoch": 6.0, "lr": 1e-4, "steps_per_second": 0.13, "best_step": 160,
            "memory_used": 21.9e9, "memory_total": 24.3e9}, **changes}


ENCODING = {"phase": {"name": "encoding", "done": 37, "total": 120}, "losses": [], "validation": [], "samples": [],
            "values": {}}
FAILED = {"status": "failed", "message": r"Picture C:\Users\me\Pictures\my dog\IMG_1234.png cannot be read: the file "
                                         "is damaged. Replace it, or set unreadable to skip."}
STOPPING = {**ENCODING, "phase": {"name": "encoding", "done": 4999, "total": 12000}, "stopping": True}
SCORED = {"fidelity": [[0, 0.281], [80, 0.296], [160, 0.29], [240, 0.262]],
          "likeness": [[0, 0.55], [80, 0.63], [160, 0.69], [240, 0.72]]}
STATES: dict[str, dict[str, Any]] = {"training": {}, "encoding": ENCODING, "stopping": STOPPING, "failed": FAILED,
                                     "stopped": {"status": "stopped by user"}, "scored": SCORED}
"""Changes to `session` for each state that looks different."""


def tell(editor: Editor, news: dict[str, Any]) -> None:
    """Dispatch an event to the page as the server would."""
    editor.page.evaluate("""async news => {
        const { api } = await import("/scripts/api.js");
        api.dispatchEvent(new CustomEvent("atelier.training", { detail: news }));
    }""", news)
