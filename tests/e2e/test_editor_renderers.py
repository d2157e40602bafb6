"""What the editor shows in both of its renderers: errors on their nodes, and few widgets at first."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.clip_models import clip_config, random_clip, save_clip
from kit.editor import ARTEFACTS, EMPTY, Editor
from kit.fake_vision import FakeVision, description, write_numbered
from kit.graphs import Graph
from kit.host import Host
from kit.main_workflow import ended
from kit.panel import session, tell, wait_for_steps
from kit.pictures import write_pictures
from kit.shapes import draw_shapes
from playwright.sync_api import Browser, expect
from safetensors import safe_open

pytestmark = [pytest.mark.host, pytest.mark.browser, pytest.mark.slow]

MODEL = "small.safetensors"
CLIP = "tiny-clip"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, put_checkpoint: Callable[..., str]) -> Iterator[Host]:
    """One of its own: a renderer that was chosen once stays chosen."""
    with Host(tmp_path_factory.mktemp("renderers")) as running:
        for name in ("editor", "plain"):
            draw_shapes(running.base / "input" / name, count=5)
        put_checkpoint(running, MODEL)
        save_clip(running.base / "models" / "clip_score" / CLIP, random_clip(clip_config()))
        yield running


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "vue"])
def editor(chromium: Browser, host: Host, request: pytest.FixtureRequest) -> Iterator[Editor]:
    host.post("/settings/Comfy.VueNodes.Enabled", request.param)
    with Editor(chromium, host) as running:
        yield running


def show(editor: Editor, host: Host, **nodes: tuple[str, dict]) -> None:
    graph = Graph(**nodes).fill(host)
    editor.load(EMPTY)
    editor.page.evaluate("graph => app.loadApiJson(graph, 'errors')", graph)
    editor.page.wait_for_function("count => app.rootGraph.nodes.length === count", arg=len(graph))


def test_the_reason_of_a_failure_stands_on_its_node_until_the_next_run(editor: Editor, host: Host) -> None:
    show(editor, host, **{
        "1": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 3, "color": 0}),
        "2": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 2, "color": 255}),
        "3": ("AtelierBlockGrid", {"images": ["1", 0], "fillers": ["2", 0], "block": 2}),
        "4": ("PreviewImage", {"images": ["3", 0]}),
    })
    done = ended(host, editor.run())
    failed = next(data for kind, data in done["status"]["messages"] if kind == "execution_error")
    assert failed["exception_type"] == "atelier.AtelierError"
    note = editor.page.locator(".atelier-error")
    editor.show(3)
    expect(note).to_have_count(1)
    expect(note).to_have_text(failed["exception_message"].strip())
    ARTEFACTS.mkdir(exist_ok=True)
    editor.page.screenshot(path=ARTEFACTS / "error-on-a-node.png")
    editor.set_widget(2, "batch_size", 9)
    assert ended(host, editor.run())["status"]["status_str"] == "success"
    expect(note).to_have_count(0)


def test_the_reason_of_a_refusal_stands_on_its_node(editor: Editor, host: Host) -> None:
    show(editor, host, **{"1": ("AtelierImageFolder", {"folder": "no such folder"})})
    editor.page.get_by_test_id("queue-button").click()
    note = editor.page.locator(".atelier-error")
    editor.show(1)
    expect(note).to_contain_text("no such folder is not a folder")
    workflow = editor.page.evaluate("() => JSON.stringify(app.rootGraph.serialize())")
    assert "is not a folder" not in workflow


def test_a_training_without_its_model_runs_nothing_and_says_so(editor: Editor, host: Host) -> None:
    """Image Folder is an output node, which the host would run alone and call the job completed."""
    show(editor, host, **first_training("gone.safetensors", "editor"))
    before = host.get_json("/history").keys()
    editor.run_refused()
    notes = editor.page.locator(".atelier-error")
    expect(notes).to_have_count(2)
    editor.show(1)
    expect(notes.filter(has_text="There is no file 'gone.safetensors'").first).to_be_visible()
    editor.show(3)
    expect(notes.filter(has_text="This did not run, because of node 1")).to_be_visible()
    editor.screenshot("training-refused")
    assert host.get_json("/history").keys() == before


def test_a_first_training_needs_no_wiring_and_no_captions_to_draw_samples(editor: Editor, host: Host) -> None:
    """A model, pictures and the trainer, found by its own name; everything else as it is."""
    for file in (host.base / "input" / "plain").glob("*.txt"):
        file.unlink()
    steps = 4 if on_canvas(editor) else 5  # the second renderer's is another run
    show(editor, host, **first_training(MODEL, "plain", name="first", preset="quick look"))
    titles = editor.page.evaluate("() => Object.values(LiteGraph.registered_node_types).map(({ title }) => title)")
    assert [titles.count(title) for title in ("Train LoRA", "Train LoRA (Atelier)")] == [1, 1]
    editor.set_widget(2, "resolution", 64)
    editor.show(3)
    expect(editor.panel).to_contain_text("Press Run to train 200 steps, as the preset has it.")
    editor.set_widget(3, "length", steps)
    expect(editor.panel).to_contain_text(f"Press Run to train {steps} steps.")
    done = ended(host, editor.run())
    assert done["status"]["status_str"] == "success"
    expect(editor.panel.get_by_role("status").first).to_have_text("Finished")
    samples = editor.panel.get_by_role("img", name=f"Sample picture after step {steps}")
    expect(samples).to_be_visible()
    editor.screenshot("first-training")
    header = host.get_json(f"/atelier/training?prompt={done['prompt'][1]}")["sessions"][0]
    assert header["can_sample"] and header["samples"] == list(range(1, steps + 1))
    editor.show(2)
    told = editor.page.locator("pre.atelier-result")
    expect(told).to_contain_text("5 pictures")
    expect(told).to_contain_text("the caption of each picture is its folder's name, such as 'plain'")
    progress_texts_are_gone(editor)

    # A copy of the workflow: the host has the result in its cache and runs nothing.
    editor.page.evaluate("() => app.loadGraphData({ ...app.rootGraph.serialize(), id: crypto.randomUUID() })")
    editor.show(3)
    expect(editor.panel.get_by_role("status").first).to_have_text("Not trained yet")
    copied = ended(host, editor.run())
    assert host.get_json(f"/atelier/training?prompt={copied['prompt'][1]}")["sessions"] == []
    expect(editor.panel.get_by_role("status").first).to_have_text("Taken from an earlier run")
    wait_for_steps(editor.panel, steps)
    expect(samples).to_be_visible()

    # What the server says step by step while a sample picture is drawn.
    workflow = editor.page.evaluate("app.rootGraph.id")
    for number, step in enumerate((0, 7), 1):
        tell(editor, session(workflow, "3", number=number, run="drawing",
                             phase={"name": "sampling", "done": step, "total": 12}))
        expect(editor.panel.get_by_role("status").first).to_have_text(f"Drawing a sample, {step} of 12")


def test_a_folder_is_chosen_from_a_list_and_filled_from_the_browser(editor: Editor, host: Host, tmp_path: Path) -> None:
    graph = Graph(**{"1": ("AtelierImageFolder", {"folder": ""})})
    show(editor, host, **graph.nodes)
    values = len(editor.page.evaluate("() => app.rootGraph.serialize()")["nodes"][0]["widgets_values"])
    assert values == len(graph.fill(host)["1"]["inputs"]), "the list is no value of the workflow"
    editor.show(1)
    choice = editor.page.get_by_label("Folders with pictures")
    expect(choice).to_be_visible()  # not before the canvas draws its next frame; what is hidden takes no focus
    choice.focus()
    expect(choice).to_be_focused()
    expect(choice.get_by_role("option", name="plain (5 pictures)", exact=True)).to_have_count(1)
    choice.select_option("plain")
    assert editor.api_graph()["1"]["inputs"]["folder"] == "plain"

    name = "uploaded classic" if on_canvas(editor) else "uploaded vue"
    editor.set_widget(1, "folder", name)
    good = sorted(write_pictures(tmp_path, [(32, 24)] * 2).iterdir())
    (tmp_path / "notes.html").write_text("<p>", encoding="utf-8")
    editor.page.locator(".atelier-folders input[type=file]").set_input_files(
        [*good, tmp_path / "notes.html"])
    note = editor.page.locator(".atelier-folders p")
    expect(note).to_contain_text(f"4 of 5 files are in {name}. notes.html is neither a picture nor a caption file.")
    editor.screenshot("folder-list")
    expect(choice.get_by_role("option", name=f"{name} (2 pictures)", exact=True)).to_have_count(1)
    assert {path.name: path.read_bytes() for path in (host.base / "input" / name).iterdir()} == {
        path.name: path.read_bytes() for path in good}
    done = ended(host, editor.run())
    assert done["status"]["status_str"] == "success"
    assert "2 pictures" in done["outputs"]["1"]["text"][0]


def test_captions_are_reviewed_on_the_node_and_reach_the_trainer(editor: Editor, host: Host) -> None:
    name = "captions classic" if on_canvas(editor) else "captions vue"
    write_numbered(host.base / "input" / name, 4, size=(96, 64))
    with FakeVision() as fake:
        show(editor, host, **{
            "1": ("AtelierLLM", {"endpoint": "custom", "base_url": fake.base_url, "model": "fake-model"}),
            "2": ("AtelierCaptionPictures", {"llm": ["1", 0], "folder": name, "trigger": "ohwx", "resolution": 64}),
            "3": ("AtelierOpenModel", {"model": MODEL}),
            "4": ("AtelierTrainLora", {"model": ["3", 0], "training_set": ["2", 1], "name": name, "length": 4,
                                       "preset": "quick look", "options": ["5", 0]}),
            "5": ("AtelierTrainingOptions", {"sample_prompt": "a number\nanother", "sample_steps": 1, "sample_every": 2,
                                             "score_model": CLIP}),
        })
        assert ended(host, editor.run())["status"]["status_str"] == "success"
        editor.show(2)
        review = editor.page.locator(".atelier-captions")
        caption = review.get_by_role("textbox", name="Caption of 001.png")
        expect(caption).to_have_value(f"ohwx, {description(1)}")
        caption.fill("ohwx, in a person's words")
        review.get_by_role("checkbox", name="Use 002.png").uncheck()
        expect(review.get_by_role("status")).to_contain_text("1 changed, 1 left out. Run again to use it.")
        editor.screenshot(name.replace(" ", "-"))
        assert ended(host, editor.run())["status"]["status_str"] == "success"
        expect(review).to_contain_text("3 captions: 2 were there, 1 edited; 1 left out")
        assert sorted(fake.seen()) == [0, 1, 2, 3]
        check_scores(editor, name)
    texts = {path.stem: path.read_text(encoding="utf-8").strip() for path in (host.base / "input" / name).glob("*.txt")}
    assert texts == {"000": f"ohwx, {description(0)}", "001": "ohwx, in a person's words",
                     "002": f"ohwx, {description(2)}", "003": f"ohwx, {description(3)}"}
    with safe_open(max((host.base / "models" / "loras").glob(f"{name}*.safetensors"),
                       key=lambda path: path.stat().st_mtime_ns), framework="pt") as file:
        tags = json.loads(file.metadata()["ss_tag_frequency"])["training set"]
    assert tags == {"ohwx": 3, description(0): 1, "in a person's words": 1, description(3): 1}


def check_scores(editor: Editor, name: str) -> None:
    """The panel draws the scores of the samples after 0, 2 and 4 steps, and says what they gained."""
    editor.show(4)
    words = [re.compile(rf"^{curve} -?0\.\d{{3}} \([+−]0\.\d{{3}}\)$") for curve in ("fidelity", "likeness")]
    expect(editor.page.locator(".atelier-score-legend li")).to_have_text(words)
    colours = editor.panel.locator("canvas").last.evaluate("""canvas => {
        const { width, height } = canvas;
        const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
        const seen = { fidelity: new Set(), likeness: new Set() };
        for (let i = 0; i < pixels.length; i += 4) {
            const [red, green, blue, alpha] = pixels.slice(i, i + 4);
            if (alpha > 200 && green - red > 60) seen.fidelity.add((i / 4) % width);
            if (alpha > 200 && red - green > 60) seen.likeness.add((i / 4) % width);
        }
        return [seen.fidelity.size / width, seen.likeness.size / width];
    }""")
    assert min(colours) > 0.5, colours
    expect(editor.page.locator(".atelier-samples img")).to_have_count(3)
    editor.screenshot(f"scores-{name.replace(' ', '-')}")


def progress_texts_are_gone(editor: Editor) -> None:
    """Such as "reading 5/5", which the editor itself leaves on a node that is done."""
    editor.page.wait_for_function("""() => app.rootGraph.nodes.every(
        ({ widgets = [] }) => widgets.every(({ name }) => name !== "$$node-text-preview"))""")
    expect(editor.page.get_by_text(re.compile(r"^reading\b"))).to_have_count(0)


def first_training(model: str, folder: str, **trainer: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    """The nodes of a first training: a model, pictures, and the trainer."""
    return {"1": ("AtelierOpenModel", {"model": model}), "2": ("AtelierImageFolder", {"folder": folder}),
            "3": ("AtelierTrainLora", {"model": ["1", 0], "training_set": ["2", 0], **trainer})}


def on_canvas(editor: Editor) -> bool:
    """Whether nodes are drawn on the canvas, and not as elements of the page."""
    return not editor.page.evaluate("() => LiteGraph.vueNodesMode")


def press_more(editor: Editor, node: int) -> None:
    """Press the button that shows a node's advanced widgets, or folds them again."""
    if not on_canvas(editor):
        editor.page.locator(f"[data-node-id='{node}']").get_by_test_id("advanced-inputs-button").click()
        return
    editor.page.evaluate("() => new Promise(requestAnimationFrame)")
    x, y = editor.page.evaluate("""number => {
        const node = app.rootGraph.getNodeById(number);
        const { last_y } = node.widgets.find(({ name }) => name === "atelier_more");
        return app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, node.pos[1] + last_y + 10]);
    }""", node)
    box = editor.page.locator("#graph-canvas").bounding_box()
    assert box
    editor.page.mouse.click(box["x"] + x, box["y"] + y)


def drawn(editor: Editor, node: int) -> list[str]:
    """The names of the widgets that are drawn, in the order of the page."""
    if on_canvas(editor):
        return editor.page.evaluate("""number => {
            const node = app.rootGraph.getNodeById(number);
            return node.widgets.filter(widget => node.isWidgetVisible(widget)).map(({ name }) => name)
                .filter(name => name !== "atelier_more");
        }""", node)
    names = set(editor.page.evaluate("number => app.rootGraph.getNodeById(number).widgets.map(({ name }) => name)",
                                     node))
    shown = editor.page.locator(f"[data-node-id='{node}']").inner_text().split("\n")
    return [name for line in shown if (name := line.strip().replace(" ", "_")) in names]


def wait_until_drawn(editor: Editor, node: int, count: int) -> list[str]:
    """Wait for a number of widgets; their names."""
    end = time.monotonic() + 60
    while len(names := drawn(editor, node)) != count:
        assert time.monotonic() < end, names
        editor.page.wait_for_timeout(100)
    return names


def test_few_widgets_are_shown_at_first_and_the_others_at_a_press(editor: Editor, host: Host) -> None:
    """What a link leads to is always among them. Folding changes nothing of the workflow."""
    graph = Graph(**{"1": ("AtelierTrainingOptions", {"beta2": ["2", 0]}), "2": ("PrimitiveFloat", {"value": 0.9}),
                     "3": ("AtelierImageFolder", {}), "4": ("AtelierWritePrompt", {}),
                     "5": ("AtelierBlockGrid", {"images": ["6", 0]}), "6": ("EmptyImage", {})})
    show(editor, host, **graph.nodes)
    editor.show(1, 0.5)
    names = wait_until_drawn(editor, 1, 12)
    assert {"learning_rate", "beta2"} <= set(names) and "beta1" not in names, names
    saved = editor.page.evaluate("() => app.rootGraph.serialize()")
    values = {node["type"]: len(node["widgets_values"]) for node in saved["nodes"]}
    sent = editor.api_graph()
    press_more(editor, 1)
    names = wait_until_drawn(editor, 1, values["AtelierTrainingOptions"])
    assert {"beta1", "beta2", "save_dtype"} <= set(names)
    editor.screenshot("unfolded")
    press_more(editor, 1)
    wait_until_drawn(editor, 1, 12)
    assert editor.api_graph() == sent
    for node in (3, 4, 5):
        editor.show(node, 0.5)
        assert len(drawn(editor, node)) <= 9, drawn(editor, node)
    editor.load(saved)
    assert editor.api_graph() == sent
