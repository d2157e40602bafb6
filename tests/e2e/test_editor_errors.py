"""What the editor shows on a node that fails or is refused, in both of its renderers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.editor import ARTEFACTS, EMPTY, Editor
from kit.graphs import Graph
from kit.host import Host
from kit.main_workflow import ended
from playwright.sync_api import Browser, expect

pytestmark = [pytest.mark.host, pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One of its own: a renderer that was chosen once stays chosen."""
    with Host(tmp_path_factory.mktemp("renderers")) as running:
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
