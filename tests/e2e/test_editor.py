"""The editor in a real browser: workflows, help, results on their nodes, and what it shows of a mistake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit.clip_models import clip_config, random_clip, save_clip
from kit.editor import EMPTY, Editor
from kit.fake_llm import GOOD, FakeLlm
from kit.graphs import FIRST_RELEASE, Graph, load_graph
from kit.host import Host
from kit.languages import LANGUAGES, read
from kit.main_workflow import CHECKPOINT, TRAINER, ended, main_workflow, make_small, supply
from kit.named_files import named_files
from playwright.sync_api import Browser, expect

from tools.workflows import FOLDER, TITLES, read_api

pytestmark = [pytest.mark.host, pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def page(chromium: Browser, host: Host, put_checkpoint: Callable[..., str]) -> Iterator[Editor]:
    """One page for all tests: each loads what it needs."""
    put_checkpoint(host, CHECKPOINT)
    supply(host)
    save_clip(host.base / "models" / "clip_score" / "shown", random_clip(clip_config()))
    with named_files(host.base), Editor(chromium, host) as running:
        yield running


@pytest.fixture
def editor(page: Editor) -> Iterator[Editor]:
    yield page
    assert not page.complaints


def test_a_workflow_of_the_first_release_opens_with_its_values(editor: Editor) -> None:
    """Widgets are saved in their order; those that are new have their defaults."""
    editor.load(load_graph(FIRST_RELEASE / "finetune_then_generate.json"))
    assert editor.missing() == []
    shown = editor.api_graph()
    for number, node in load_graph(FIRST_RELEASE / "finetune_then_generate.api.json").items():
        new = {"AtelierTrainingOptions": {"save_dtype": "fp32", "tag_dropout": 0, "level_shift": "as preset",
                                          "level_distribution": "logit_normal", "shift_value": -1, "sample_seeds": "",
                                          "score_model": "none"},
               "AtelierTrainLora": {"sample_prompt": ""}}.get(node["class_type"], {})
        assert shown[number]["inputs"] == node["inputs"] | new, node["class_type"]
    assert editor.errors_so_far() == []


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeLlm]:
    with FakeLlm() as server:
        yield server


def test_every_workflow_opens_and_exports_as_it_ships(editor: Editor) -> None:
    for name, title in TITLES.items():
        editor.load(json.loads((FOLDER / f"{title}.json").read_text(encoding="utf-8")))
        assert editor.missing() == [], title
        shipped = {number: {**node, "_meta": {"title": node["_meta"]["title"]}}
                   for number, node in read_api(name).items()}
        assert editor.api_graph() == shipped, title
        assert editor.errors_so_far() == [], title
        expect(editor.page.get_by_role("dialog")).to_have_count(0)
    editor.page.wait_for_timeout(500)
    assert editor.errors_so_far() == []


def test_help_is_shown_in_the_editor(editor: Editor) -> None:
    editor.load(main_workflow())
    editor.show(TRAINER)
    editor.page.evaluate(f"app.canvas.selectNode(app.rootGraph.getNodeById({TRAINER}))")
    editor.page.get_by_test_id("info-button").click()
    written = (ROOT / "web" / "docs" / "AtelierTrainLora.md").read_text(encoding="utf-8")
    first_fault = written.split("## What goes wrong")[1].split("**")[1]
    expect(editor.page.get_by_role("heading", name="What goes wrong")).to_be_visible()
    expect(editor.page.get_by_text(first_fault)).to_be_visible()


def test_results_are_shown_on_their_nodes(editor: Editor, host: Host, fake: FakeLlm) -> None:
    """Scores as bars, unique cells outlined under the pointer, verdict and prompts as text, pictures to train on."""
    graph = Graph(**{
        "1": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 2, "color": 0x3070A0}),
        "2": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 6, "color": 0xA07030}),
        "3": ("AtelierBlockGrid", {"images": ["1", 0], "fillers": ["2", 0], "block": 2, "cell_width": 0}),
        "4": ("AtelierCLIPScore", {"images": ["1", 0], "text": "a blue picture", "model": "shown"}),
        "5": ("AtelierWritePrompt", {"idea": "a lighthouse", "llm": ["9", 0]}),
        "6": ("CheckpointLoaderSimple", {"ckpt_name": CHECKPOINT}),
        "7": ("AtelierCheckTrigger", {"clip": ["6", 1], "word": "ohwx"}),
        "8": ("AtelierImageFolder", {"folder": "editor"}),
        "9": ("AtelierLLM", {"endpoint": "custom", "base_url": fake.base_url, "model": "m", "price_in": 0.15,
                             "price_out": 0.6}),
    }).fill(host)
    editor.page.evaluate("graph => app.loadApiJson(graph, 'results')", graph)
    editor.page.wait_for_function("() => app.rootGraph.nodes.length === 9")
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
    # 100 and 50 tokens at 0.15 and 0.60 a million.
    for part in (GOOD["positive"], GOOD["negative"], GOOD["title"], " of 75", "cost 0.000045"):
        expect(texts.filter(has_text=GOOD["title"])).to_contain_text(part)
    editor.show(7)
    expect(texts.filter(has_text="ohwx")).to_contain_text("one rare token")
    editor.show(8)
    sheet = editor.page.locator(".atelier-sheet")
    expect(sheet).to_contain_text("5 pictures")
    assert sheet.locator("img").evaluate("async image => { await image.decode(); return image.naturalWidth; }") > 100
    assert host.picture(done["outputs"]["8"]["images"][0]).std() > 10

    # Another tab and back, and a change undone: each time the editor makes the nodes anew.
    workflow = editor.page.evaluate("app.rootGraph.id")
    assert workflow.strip("0-"), "the API format has no id; what is found by one would be lost"
    editor.load(EMPTY)
    expect(editor.page.locator(".atelier-result")).to_have_count(0)
    editor.page.evaluate("app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    editor.page.wait_for_function("() => app.rootGraph.nodes.length === 9")
    assert editor.page.evaluate("app.rootGraph.id") == workflow
    results_are_back(editor)
    editor.page.evaluate("""() => {
        window.made = app.rootGraph.getNodeById(4);
        app.rootGraph.getNodeById(8).pos[0] += 10;
        app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState();
        return app.extensionManager.command.execute("Comfy.Undo");
    }""")
    editor.page.wait_for_function("() => app.rootGraph.getNodeById(4) !== window.made")
    results_are_back(editor)


def results_are_back(editor: Editor) -> None:
    editor.show(4)
    expect(editor.page.locator(".atelier-bars tr")).to_have_count(2)
    editor.show(3)
    expect(editor.page.locator(".atelier-grid span")).to_have_count(2)


def test_numbers_reach_the_run_as_they_are_typed(editor: Editor, host: Host) -> None:
    """The editor cuts them to its own number of decimals; and its arrows go further than the last decimal."""
    graph = Graph(**{"1": ("AtelierTrainingOptions", {}), "2": ("AtelierLoraConfig", {})}).fill(host)
    editor.page.evaluate("graph => app.loadApiJson(graph, 'numbers')", graph)
    editor.page.wait_for_function("() => app.rootGraph.nodes.length === 2")
    numbers = {"learning_rate": 2.5e-5, "text_learning_rate": 1e-6, "ema_decay": 0.9995, "beta2": 0.9995,
               "weight_decay": 1e-4, "min_delta": 5e-4, "noise_offset": 0.0357}
    for name, value in numbers.items():
        editor.set_widget(1, name, value)
    editor.set_widget(2, "alpha", 0.25)
    sent = editor.api_graph()
    assert {name: sent["1"]["inputs"][name] for name in numbers} == numbers
    assert sent["2"]["inputs"]["alpha"] == 0.25
    editor.page.evaluate("""() => {
        const rate = app.rootGraph.getNodeById(1).widgets.find(({ name }) => name === "learning_rate");
        rate.incrementValue({ e: {}, node: app.rootGraph.getNodeById(1), canvas: app.canvas });
    }""")
    assert editor.api_graph()["1"]["inputs"]["learning_rate"] == 3.5e-5


def test_copied_trainers_are_let_go(editor: Editor) -> None:
    """Each copy makes a node that never stands in a graph, and nobody is told of its end."""
    editor.load(EMPTY)
    editor.page.evaluate("""() => {
        const node = LiteGraph.createNode("AtelierTrainLora");
        app.rootGraph.add(node);
        window.copies = Array.from({ length: 10 }, () => new WeakRef(
            node.clone().widgets.find(widget => widget.name === "training_panel").element));
    }""")
    session = editor.page.context.new_cdp_session(editor.page)
    for _ in range(50):
        editor.page.wait_for_timeout(100)
        session.send("HeapProfiler.collectGarbage")
        left = editor.page.evaluate("() => window.copies.filter(copy => copy.deref()).length")
        if left <= 1:  # the editor's own last one may be held somewhere
            break
    assert left <= 1


def test_a_bad_value_is_shown_on_its_node_and_not_trained_on(editor: Editor, host: Host) -> None:
    editor.load(main_workflow())
    make_small(editor, "bad", 5, 15)
    editor.set_widget(2, "folder", "no such folder")
    before = host.get_json("/history").keys()
    editor.run_refused()
    editor.page.wait_for_function("() => app.rootGraph.getNodeById(2).has_errors")
    marked = editor.page.evaluate("() => app.rootGraph.nodes.filter(node => node.has_errors).map(node => node.id)")
    assert [str(number) for number in marked] == ["2"]
    assert any("Image Folder rejected the value for folder" in text for text in editor.errors()), editor.errors()
    assert editor.errors_so_far(), "what other tests rely on is blind"
    editor.page.get_by_text("View details").click()
    editor.page.get_by_role("button", name="Info for Image Folder - folder").click()
    expect(editor.page.get_by_text("no such folder is not a folder").first).to_be_visible()
    # Not even the conversion, which does not depend on it.
    assert host.get_json("/history").keys() == before


def test_nodes_and_panel_speak_the_language_of_the_editor(editor: Editor) -> None:
    """What the host hands out is shown: the node's name, and its inputs, widgets and outputs; and what the page says,
    whole, as soon as the language is chosen."""
    editor.load(main_workflow())
    try:
        # The editor does not wait for a language's own file the first time that it is chosen; Chinese is, twice.
        for language in ["zh", *LANGUAGES]:
            editor.page.evaluate("language => app.extensionManager.setting.set('Comfy.Locale', language)", language)
            said = read(ROOT / "web" / "js" / "messages" / f"{language}.json")
            expect(editor.panel).to_contain_text(said["panel.idle"])
            expect(editor.panel.get_by_role("button").first).to_have_text(said["panel.stop"])
            assert not editor.page.evaluate(CUT), language
        assert language == "zh"
        words = read(ROOT / "locales" / language / "nodeDefs.json")["AtelierTrainLora"]
        shown = editor.page.evaluate(NAMES)
        editor.show(TRAINER)
        editor.page.wait_for_function("() => app.canvas.ds.scale === 1")
        editor.page.evaluate(f"app.canvas.selectNode(app.rootGraph.getNodeById({TRAINER}))")
        editor.page.get_by_test_id("info-button").click()
        expect(editor.page.get_by_role("heading", name="可能的问题")).to_be_visible()
        editor.screenshot("chinese")
    finally:
        editor.page.evaluate("app.extensionManager.setting.set('Comfy.Locale', 'en')")
        expect(editor.panel).to_contain_text("Not trained yet")
    assert shown["title"] == words["display_name"]
    assert shown["score"] == "Atelier/评分"
    assert words["inputs"].keys() <= shown["names"].keys()
    assert {name: shown["names"][name] for name in words["inputs"]} == \
        {name: text["name"] for name, text in words["inputs"].items()}
    assert shown["outputs"] == [text["name"] for text in words["outputs"].values()]


NAMES = """() => {
    const node = LiteGraph.createNode("AtelierTrainLora");
    const shownName = slot => slot.label ?? slot.localized_name;
    const names = slots => Object.fromEntries(slots.map(slot => [slot.name, shownName(slot)]));
    return { title: node.title, names: { ...names(node.inputs), ...names(node.widgets) },
             outputs: node.outputs.map(shownName),
             score: LiteGraph.createNode("AtelierCLIPScore").constructor.category };
}"""
CUT = """() => {
    const panel = document.querySelector(".atelier-panel");
    const parts = [panel, ...panel.querySelectorAll("button, dt, .atelier-title, .atelier-hint")];
    return parts.filter(part => part.scrollWidth > part.clientWidth || part.scrollHeight > part.clientHeight + 1)
        .map(part => part.innerText);
}"""
