"""Training in the editor, in a real browser: a user's path from template to picture, and the panel meanwhile."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from kit.editor import EMPTY, Editor
from kit.host import Host
from kit.main_workflow import CHECKPOINT, MAIN, SAVED, TRAINER, ended, main_workflow, make_small, supply
from kit.panel import (
    STATES,
    check_time_left,
    curve_width,
    cut_off,
    faults,
    session,
    smallest_text,
    steps_drawn,
    tell,
    wait_for_steps,
    wait_for_zoom,
)
from PIL import Image
from playwright.sync_api import Browser, expect

pytestmark = [pytest.mark.host, pytest.mark.browser, pytest.mark.slow]

LONG = 5000
"""Steps of a run that lasts until the test stops it, however slow the page is."""


@pytest.fixture(scope="module")
def page(chromium: Browser, host: Host, put_checkpoint: Callable[..., str]) -> Iterator[Editor]:
    """One page for all tests: each opens or loads what it needs."""
    put_checkpoint(host, CHECKPOINT)
    supply(host)
    with Editor(chromium, host) as running:
        yield running


@pytest.fixture
def editor(page: Editor, host: Host) -> Iterator[Editor]:
    page.complaints.clear()  # of earlier tests
    yield page
    host.interrupt()  # a run whose test failed before it stopped it
    assert not page.complaints


def test_a_users_path(editor: Editor, host: Host) -> None:
    page = editor.page
    page.evaluate("app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_text("ComfyUI-Atelier", exact=True).click()
    # The dialog draws its first cards alone, in the order in which the disk lists the files.
    page.get_by_role("dialog").get_by_placeholder("Search ...").fill(MAIN)
    page.get_by_test_id(f"template-workflow-{MAIN}").click()
    page.wait_for_function("() => app.rootGraph.nodes.some(node => node.type === 'AtelierTrainLora')")
    assert editor.missing() == []
    assert editor.errors_so_far() == []

    make_small(editor, "person", LONG, 11)
    editor.show(TRAINER)
    status = editor.panel.get_by_role("status").first
    expect(status).to_have_text("Not trained yet")
    stop = editor.panel.get_by_role("button", name="Stop and keep")
    expect(stop).to_be_disabled()
    prompt = editor.run()
    for steps in (5, 17):
        wait_for_steps(editor.panel, steps)
        check_time_left(editor.panel)
    assert curve_width(editor.panel) > 0.5
    samples = editor.panel.get_by_role("img", name="Sample picture after step ")
    expect(samples.first).to_be_visible()
    named = samples.evaluate_all("all => all.map(picture => picture.alt)")
    assert all(int(re.findall(r" step (\d+)$", name)[0]) % 8 == 0 for name in named), named
    expect(editor.panel.locator("[data-curve=validation]")).to_be_visible()
    editor.screenshot("training")

    stop.click()
    done = ended(host, prompt)
    assert done["status"]["status_str"] == "success"
    expect(status).to_have_text("Stopped, best weights kept")
    expect(stop).to_be_hidden()
    expect(editor.panel.get_by_role("button", name="Go on")).to_be_enabled()
    both = host.picture(done["outputs"][str(SAVED)]["images"][0]).astype(int)
    without, tuned = both[:, :64], both[:, -64:]
    assert min(without.std(), tuned.std()) > 5
    assert np.abs(without - tuned).mean() > 1
    assert editor.errors_so_far() == []
    editor.show(15, 0.6)
    page.wait_for_function(f"() => app.rootGraph.getNodeById({SAVED}).imgs?.length === 1")
    editor.screenshot("pictures")


def test_a_reload_and_a_lost_connection_bring_the_curve_back(editor: Editor, host: Host) -> None:
    editor.load(main_workflow())
    make_small(editor, "reloaded", LONG, 12)
    prompt = editor.run()
    before = wait_for_steps(editor.panel, 9)
    editor.page.wait_for_function("() => Object.values(localStorage).some(draft => draft.includes(app.rootGraph.id))")
    editor.open()
    editor.page.wait_for_function("() => app.rootGraph.nodes.some(node => node.type === 'AtelierTrainLora')")
    editor.show(TRAINER)
    wait_for_steps(editor.panel, before)
    # The whole curve, from the first step on, and it grows.
    assert curve_width(editor.panel) > 0.5
    before = wait_for_steps(editor.panel, steps_drawn(editor.panel) + 2)

    editor.page.evaluate("""async () => {
        const { api } = await import("/scripts/api.js");
        api.socket.close();
    }""")
    wait_for_steps(editor.panel, before + 8)
    assert curve_width(editor.panel) > 0.5
    editor.panel.get_by_role("button", name="Stop and keep").click()
    assert ended(host, prompt)["status"]["status_str"] == "success"
    expect(editor.panel.get_by_role("status").first).to_have_text("Stopped, best weights kept")


def test_two_trainers_do_not_mix(editor: Editor, host: Host) -> None:
    """One at the top and one in a subgraph, trained one after the other."""
    editor.load(main_workflow())
    make_small(editor, "outer", 4, 14)
    inner = editor.page.evaluate("""([number, saved]) => {
        const graph = app.rootGraph;
        const [first, second] = [graph.getNodeById(number), graph.getNodeById(number).clone()];
        graph.add(second);
        for (const [index, input] of first.inputs.entries()) {
            if (input.link == null) continue;
            const link = graph.getLink(input.link);
            graph.getNodeById(link.origin_id).connect(link.origin_slot, second, index);
        }
        second.widgets.find(widget => widget.name === "length").value = 6;
        second.widgets.find(widget => widget.name === "name").value = "inner";
        graph.remove(graph.getNodeById(saved)); // nothing is drawn then
        const { node } = graph.convertToSubgraph(new Set([second]));
        return { box: node.id, node: node.subgraph.nodes.find(node => node.type === "AtelierTrainLora").id };
    }""", [TRAINER, SAVED])
    prompt = editor.run()
    assert ended(host, prompt)["status"]["status_str"] == "success"
    nodes = {found["node"]: len(found["losses"]) for found in host.get_json(
        f"/atelier/training?prompt={prompt}")["sessions"]}
    assert nodes == {str(TRAINER): 4, f"{inner['box']}:{inner['node']}": 6}
    editor.show(TRAINER)
    wait_for_steps(editor.panel.locator("visible=true"), 4)
    assert steps_drawn(editor.panel.locator("visible=true")) == 4
    editor.page.evaluate("number => app.canvas.setGraph(app.rootGraph.getNodeById(number).subgraph)", inner["box"])
    editor.page.evaluate("number => app.canvas.centerOnNode(app.canvas.graph.getNodeById(number))", inner["node"])
    wait_for_steps(editor.panel.locator("visible=true"), 6)
    assert steps_drawn(editor.panel.locator("visible=true")) == 6


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_panel_is_readable_in_every_state(editor: Editor, theme: str) -> None:
    """By its contrast, names and roles as axe-core judges them, and by its size, at 100 % and at 70 % zoom."""
    drawn = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(drawn, "JPEG")
    editor.page.route("**/atelier/training/sample?*", lambda route: route.fulfill(
        body=drawn.getvalue(), content_type="image/jpeg"))
    editor.page.evaluate("name => app.extensionManager.setting.set('Comfy.ColorPalette', name)", theme)
    editor.load(EMPTY)
    node, workflow, own_text = editor.page.evaluate("""() => {
        const node = LiteGraph.createNode("AtelierTrainLora");
        app.graph.add(node);
        return [node.id, app.rootGraph.id, LiteGraph.NODE_SUBTEXT_SIZE];
    }""")
    editor.show(node)
    expect(editor.panel).to_contain_text("Press Run to train")
    expect(editor.panel).to_have_attribute("data-ground", theme)
    assert faults(editor, editor.panel) == []
    for state, changes in STATES.items():
        tell(editor, session(workflow, str(node), **changes, run=f"{theme} {state}"))
        expect(editor.panel).to_have_attribute("data-status", changes.get("status", "running"))
        # Pictures of another run after as many steps are others; the browser must not take them for these.
        pictures = editor.panel.locator("img").evaluate_all("all => all.map(picture => picture.src)")
        assert all(f"run={theme}+{state}&" in address for address in pictures), pictures
        for zoom in (1.0, 0.7):
            editor.show(node, zoom)
            wait_for_zoom(editor, editor.panel, zoom)
            assert cut_off(editor.panel) == [], f"{state} at {zoom}"
            # No smaller than the text on the node's own widgets.
            assert smallest_text(editor.panel) >= own_text * zoom - 0.01, f"{state} at {zoom}"
        assert faults(editor, editor.panel) == [], state
        editor.screenshot(f"{state}-{theme}")
    editor.page.unroute_all()
