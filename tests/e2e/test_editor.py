"""The editor in a real browser: a person's path through a template, and the training panel on the way."""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from kit.clip_models import clip_config, random_clip, save_clip
from kit.editor import Editor, browser
from kit.graphs import Graph
from kit.host import Host
from kit.shapes import draw_shapes
from playwright.sync_api import Browser, Locator, expect

from tools.workflows import FOLDER, TITLES, read_api

pytestmark = [pytest.mark.host, pytest.mark.browser, pytest.mark.slow]

MAIN = "Fine-tune then generate"
TRAINER, SAVED = 4, 20
SMALL = [(2, "resolution", 64), (3, "learning_rate", 3e-3), (3, "schedule", "constant"), (3, "sample_every", 15),
         (3, "sample_steps", 1), (3, "validate_every", 15), (15, "steps", 2), (16, "steps", 2), (14, "width", 64),
         (14, "height", 64)]
"""Changes that make the main workflow fit a small model and a short test."""

CHECKPOINTS = "models/checkpoints"
NAMED = {"CheckpointLoaderSimple": {"ckpt_name": CHECKPOINTS}, "AtelierConvertCheckpoint": {"checkpoint": CHECKPOINTS},
         "AtelierOpenModel": {"model": CHECKPOINTS}, "LoraLoader": {"lora_name": "models/loras"},
         "LoadImage": {"image": "input"}, "AtelierCLIPScore": {"model": "models/clip_score"}}
"""Where the files are that widgets name, by class."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def models(host: Host, put_checkpoint: Callable[..., str]) -> Iterator[None]:
    """The small model under the main workflow's name, pictures, and an empty file for every other name that the
    workflows give: the editor looks no further than at names."""
    put_checkpoint(host, read_api("finetune_then_generate")["1"]["inputs"]["checkpoint"])
    draw_shapes(host.base / "input" / "editor", count=5)
    made = []
    for name in TITLES:
        for node in read_api(name).values():
            for widget, folder in NAMED.get(node["class_type"], {}).items():
                file = host.base / folder / node["inputs"][widget]
                file = file if file.suffix else file / "config.json"
                if not file.exists():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.touch()
                    made.append(file)
    yield
    for file in made:
        file.unlink()
        if not any(file.parent.iterdir()):
            file.parent.rmdir()


@pytest.fixture
def editor(chromium: Browser, host: Host, models: None) -> Iterator[Editor]:
    with Editor(chromium, host) as running:
        yield running
        assert not running.complaints


def main_workflow() -> dict[str, Any]:
    return json.loads((FOLDER / f"{MAIN}.json").read_text(encoding="utf-8"))


def make_small(editor: Editor, name: str, steps: int, seed: int) -> None:
    for node, widget, value in [*SMALL, (2, "folder", "editor"), (TRAINER, "name", name), (TRAINER, "length", steps),
                                (TRAINER, "seed", seed)]:
        editor.set_widget(node, widget, value)


def steps_drawn(panel: Locator) -> int:
    """How many steps the curve says it covers."""
    found = re.search(r"over (\d+) steps", panel.locator("canvas").get_attribute("aria-label") or "")
    return int(found[1]) if found else 0


def wait_for_steps(panel: Locator, count: int) -> int:
    end = time.monotonic() + 120
    while (seen := steps_drawn(panel)) < count:
        assert time.monotonic() < end, f"{seen} steps: {panel.inner_text()}"
        time.sleep(0.1)
    return seen


def seconds_left(panel: Locator) -> int:
    minutes, seconds = panel.locator("[data-value=left]").inner_text().split(":")
    return 60 * int(minutes) + int(seconds)


def curve_width(panel: Locator) -> float:
    """How much of the canvas' width the smoothed curve covers, seen in its pixels."""
    return panel.locator("canvas").evaluate("""canvas => {
        const { width, height } = canvas;
        const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
        const columns = new Set();
        for (let i = 0; i < pixels.length; i += 4) {
            // Strong blue: no other line has it.
            if (pixels[i + 3] > 200 && pixels[i + 2] > 150 && pixels[i] < 110) columns.add((i / 4) % width);
        }
        return columns.size / width;
    }""")


def ended(host: Host, prompt: str) -> dict[str, Any]:
    end = time.monotonic() + 180
    while prompt not in (history := host.get_json(f"/history/{prompt}")):
        assert time.monotonic() < end
        time.sleep(0.2)
    return history[prompt]


def serious_faults(editor: Editor) -> list[str]:
    """What axe-core finds wrong with the panel."""
    found = Axe().run(editor.page, context=".atelier-panel").response["violations"]
    return [f"{fault['id']}: {node['html'][:200]} {node['failureSummary']}"
            for fault in found for node in fault["nodes"]]


def test_a_persons_path(editor: Editor, host: Host) -> None:
    page = editor.page
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("ComfyUI-Atelier", exact=True).click()
    page.get_by_test_id(f"template-workflow-{MAIN}").click()
    page.wait_for_function("() => app.rootGraph.nodes.some(node => node.type === 'AtelierTrainLora')")
    assert editor.missing() == []
    assert editor.errors() == []

    make_small(editor, "person", 60, 11)
    editor.show(TRAINER)
    expect(editor.panel.get_by_role("status").first).to_have_text("Not trained yet")
    stop = editor.panel.get_by_role("button", name="Stop and keep")
    expect(stop).to_be_disabled()
    prompt = editor.run()
    wait_for_steps(editor.panel, 5)
    early = seconds_left(editor.panel)
    wait_for_steps(editor.panel, 40)
    # A third of the steps or less is left, whatever the machine does besides.
    assert seconds_left(editor.panel) < early
    assert curve_width(editor.panel) > 0.5
    expect(editor.panel.get_by_role("img", name="Sample picture after step 15")).to_be_visible()
    expect(editor.panel.locator("[data-curve=validation]")).to_be_visible()
    editor.screenshot("training")

    stop.click()
    done = ended(host, prompt)
    assert done["status"]["status_str"] == "success"
    expect(editor.panel.get_by_role("status").first).to_have_text("Stopped, best weights kept")
    expect(stop).to_be_disabled()
    assert serious_faults(editor) == []
    both = host.picture(done["outputs"][str(SAVED)]["images"][0]).astype(int)
    without, tuned = both[:, :64], both[:, -64:]
    assert min(without.std(), tuned.std()) > 5
    assert np.abs(without - tuned).mean() > 1
    assert editor.errors() == []
    editor.show(15, 0.6)
    page.wait_for_function(f"() => app.rootGraph.getNodeById({SAVED}).imgs?.length === 1")
    editor.screenshot("pictures")

    editor.show(TRAINER)
    page.evaluate("app.extensionManager.setting.set('Comfy.ColorPalette', 'light')")
    expect(editor.panel).to_have_attribute("data-ground", "light")
    assert serious_faults(editor) == []
    editor.screenshot("training-light")


def test_a_reload_in_mid_training_brings_the_curve_back(editor: Editor, host: Host) -> None:
    editor.load(main_workflow())
    make_small(editor, "reloaded", 300, 12)
    prompt = editor.run()
    before = wait_for_steps(editor.panel, 12)
    time.sleep(1)  # the editor keeps its draft of the graph with a delay
    editor.open()
    editor.page.wait_for_function("() => app.rootGraph.nodes.some(node => node.type === 'AtelierTrainLora')")
    editor.show(TRAINER)
    wait_for_steps(editor.panel, before)
    # Whole, from the first step on, and growing.
    assert curve_width(editor.panel) > 0.5
    assert wait_for_steps(editor.panel, steps_drawn(editor.panel) + 2)
    editor.panel.get_by_role("button", name="Stop and keep").click()
    assert ended(host, prompt)["status"]["status_str"] == "success"
    expect(editor.panel.get_by_role("status").first).to_have_text("Stopped, best weights kept")


def test_a_lost_connection_is_made_good(editor: Editor, host: Host) -> None:
    """What happened while the page could not hear is there once it can again."""
    editor.load(main_workflow())
    make_small(editor, "reconnected", 60, 13)
    prompt = editor.run()
    before = wait_for_steps(editor.panel, 3)
    editor.page.evaluate("""async () => {
        const { api } = await import("/scripts/api.js");
        api.socket.close();
    }""")
    wait_for_steps(editor.panel, before + 10)
    assert curve_width(editor.panel) > 0.5
    host.post("/atelier/training/stop", {"prompt": prompt})
    ended(host, prompt)


def test_two_trainers_do_not_mix(editor: Editor, host: Host) -> None:
    """One at the top and one in a subgraph, trained one after the other."""
    editor.load(main_workflow())
    make_small(editor, "outer", 6, 14)
    inner = editor.page.evaluate("""number => {
        const graph = app.rootGraph;
        const [first, second] = [graph.getNodeById(number), graph.getNodeById(number).clone()];
        graph.add(second);
        for (const [index, input] of first.inputs.entries()) {
            if (input.link == null) continue;
            const link = graph.getLink(input.link);
            graph.getNodeById(link.origin_id).connect(link.origin_slot, second, index);
        }
        second.widgets.find(widget => widget.name === "length").value = 9;
        second.widgets.find(widget => widget.name === "name").value = "inner";
        const { node } = graph.convertToSubgraph(new Set([second]));
        return { box: node.id, node: node.subgraph.nodes.find(node => node.type === "AtelierTrainLora").id };
    }""", TRAINER)
    prompt = editor.run()
    assert ended(host, prompt)["status"]["status_str"] == "success"
    nodes = {session["node"]: len(session["losses"]) for session in host.get_json(
        f"/atelier/training?prompt={prompt}")["sessions"]}
    assert nodes == {str(TRAINER): 6, f"{inner['box']}:{inner['node']}": 9}
    editor.show(TRAINER)
    wait_for_steps(editor.panel.locator("visible=true"), 6)
    assert steps_drawn(editor.panel.locator("visible=true")) == 6
    editor.page.evaluate("number => app.canvas.setGraph(app.rootGraph.getNodeById(number).subgraph)", inner["box"])
    editor.page.evaluate("number => app.canvas.centerOnNode(app.canvas.graph.getNodeById(number))", inner["node"])
    wait_for_steps(editor.panel.locator("visible=true"), 9)
    assert steps_drawn(editor.panel.locator("visible=true")) == 9


def test_every_workflow_opens_and_exports_as_it_ships(editor: Editor) -> None:
    for name, title in TITLES.items():
        editor.load(json.loads((FOLDER / f"{title}.json").read_text(encoding="utf-8")))
        assert editor.missing() == [], title
        shipped = {number: {"class_type": node["class_type"], "inputs": node["inputs"]}
                   for number, node in copy.deepcopy(read_api(name)).items()}
        exported = {number: {"class_type": node["class_type"], "inputs": node["inputs"]}
                    for number, node in editor.api_form().items()}
        assert exported == shipped, title
    editor.page.wait_for_timeout(500)
    assert editor.errors() == []


def test_help_is_shown_in_the_editor(editor: Editor) -> None:
    editor.load(main_workflow())
    editor.show(TRAINER)
    editor.page.evaluate(f"app.canvas.selectNode(app.rootGraph.getNodeById({TRAINER}))")
    editor.page.get_by_test_id("info-button").click()
    written = (Path(__file__).resolve().parents[2] / "web" / "docs" / "AtelierTrainLora.md").read_text(encoding="utf-8")
    first_fault = written.split("## What goes wrong")[1].split("**")[1]
    expect(editor.page.get_by_role("heading", name="What goes wrong")).to_be_visible()
    expect(editor.page.get_by_text(first_fault)).to_be_visible()


def test_results_are_shown_on_their_nodes(editor: Editor, host: Host) -> None:
    """Scores as bars, unique cells outlined under the pointer, verdict and prompts as text."""
    save_clip(host.base / "models" / "clip_score" / "shown", random_clip(clip_config()))
    graph = Graph(**{
        "1": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 2, "color": 0x3070A0}),
        "2": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 6, "color": 0xA07030}),
        "3": ("AtelierBlockGrid", {"images": ["1", 0], "fillers": ["2", 0], "block": 2, "cell_width": 0}),
        "4": ("AtelierCLIPScore", {"images": ["1", 0], "text": "a blue picture", "model": "shown"}),
        "5": ("AtelierWritePrompt", {"idea": "a lighthouse", "medium": "oil painting"}),
        "6": ("CheckpointLoaderSimple", {"ckpt_name": read_api("finetune_then_generate")["1"]["inputs"]["checkpoint"]}),
        "7": ("AtelierCheckTrigger", {"clip": ["6", 1], "word": "ohwx"}),
        "8": ("AtelierImageFolder", {"folder": "editor"}),
    }).fill(host)
    # The list of CLIP models is read when the page loads.
    editor.open()
    editor.page.evaluate("graph => app.loadApiJson(graph, 'results')", graph)
    editor.page.wait_for_function("() => app.rootGraph.nodes.length === 8")
    done = ended(host, editor.run())
    assert done["status"]["status_str"] == "success"

    editor.show(4)
    bars = editor.page.locator(".atelier-bars tr")
    expect(bars).to_have_count(2)
    scores = [bar["value"] for bar in done["outputs"]["4"]["bars"]]
    assert [float(text) for text in bars.locator("td:last-child").all_inner_texts()] == pytest.approx(scores, abs=6e-4)

    editor.show(3)
    grid = editor.page.locator(".atelier-grid")
    outlines = grid.locator("span")
    expect(outlines).to_have_count(2)
    assert "rgba(0, 0, 0, 0)" in outlines.first.evaluate("cell => getComputedStyle(cell).borderColor")
    grid.hover()
    assert "rgba(0, 0, 0, 0)" not in outlines.first.evaluate("cell => getComputedStyle(cell).borderColor")
    # Where the outline is, the picture has the unique pictures' colour.
    picture = host.picture(done["outputs"]["3"]["images"][0])
    for outline in outlines.all():
        x, y = outline.evaluate("""cell => [parseFloat(cell.style.left) + parseFloat(cell.style.width) / 2,
                                            parseFloat(cell.style.top) + parseFloat(cell.style.height) / 2]""")
        height, width, _ = picture.shape
        assert picture[int(y / 100 * height), int(x / 100 * width)].tolist() == [0x30, 0x70, 0xA0]

    texts = editor.page.locator("pre.atelier-result")
    editor.show(5)
    expect(texts.filter(has_text="oil painting")).to_contain_text("tokens")
    editor.show(7)
    expect(texts.filter(has_text="ohwx")).to_contain_text("one rare token")
    sheet = host.picture(done["outputs"]["8"]["images"][0])
    assert sheet.std() > 10


def test_a_bad_value_is_shown_on_its_node_and_not_trained_on(editor: Editor, host: Host) -> None:
    editor.load(main_workflow())
    make_small(editor, "bad", 5, 15)
    editor.set_widget(2, "folder", "no such folder")
    prompt = editor.run()
    editor.page.wait_for_function("() => app.rootGraph.getNodeById(2).has_errors")
    marked = editor.page.evaluate("() => app.rootGraph.nodes.filter(node => node.has_errors).map(node => node.id)")
    assert [str(number) for number in marked] == ["2"]
    assert any("Image Folder rejected the value for folder" in text for text in editor.errors()), editor.errors()
    editor.page.get_by_text("View details").click()
    editor.page.get_by_role("button", name="Info for Image Folder - folder").click()
    expect(editor.page.get_by_text("no such folder is not a folder").first).to_be_visible()
    # The host runs what does not depend on it: the conversion.
    assert ended(host, prompt)["outputs"].keys() == {"1"}
