"""ComfyUI's editor in a real browser: open it, load graphs, press its buttons, read what it shows.

    with browser() as chromium, Editor(chromium, host) as editor:
        editor.load(graph)
        editor.run()
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.host import Host
from playwright.sync_api import Browser, Locator, Page, Response, expect, sync_playwright

from tools import chromium

READY = """window.app?.graph && window.app.extensionManager?.spinner === false
    && document.querySelector('[data-testid=queue-button]')"""
"""True once the spinner is gone: loading a graph before the initial one is open would be undone."""
SECONDS = 90
"""Timeout for anything the page should show, on a busy machine."""
expect.set_options(timeout=SECONDS * 1000)
FAILURES = "[data-testid=error-overlay], .p-toast-message-error, .p-toast-message-warn"
"""Elements in which the editor reports failures: toasts and the error overlay."""
REMEMBER = """selector => {
    window.failuresShown = [];
    new MutationObserver(changes => {
        for (const node of changes.flatMap(change => [...change.addedNodes])) {
            if (node.nodeType !== Node.ELEMENT_NODE) continue;
            const shown = node.matches(selector) ? node : node.querySelector(selector);
            if (shown) window.failuresShown.push(shown.innerText);
        }
    }).observe(document, { childList: true, subtree: true });
}"""
EMPTY: dict[str, Any] = {"nodes": [], "links": [], "version": 0.4}
"""A graph without nodes."""
ARTEFACTS = Path(__file__).resolve().parent.parent.parent / "artefacts"
"""Screenshots of the last run; not part of the repository."""


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    path = chromium.find()
    assert path is not None, "mark tests that need Chromium with `browser`"
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root, as which tests run in containers.
        running = playwright.chromium.launch(executable_path=str(path), args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


class Editor:
    """One page of the editor, with storage of its own."""

    def __init__(self, chromium: Browser, host: Host, *, theme: str = "dark") -> None:
        self._host, self._theme = host, theme
        self._context = chromium.new_context(viewport={"width": 1500, "height": 1000}, locale="en-US")
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(SECONDS * 1000)
        self.page.add_init_script(f"({REMEMBER})({FAILURES!r})")
        self.complaints: list[str] = []
        """Exceptions of the page's scripts, and error messages in the console that name the pack."""
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self._listen(message.type, message.text))

    def __enter__(self) -> Editor:
        for name, value in (("Comfy.TutorialCompleted", True), ("Comfy.ColorPalette", self._theme),
                            ("Comfy.Locale", "en")):
            self._host.post(f"/settings/{name}", value)
        self.open()
        # The editor's initial graph names models that are missing; loading another one clears the warnings.
        self.load(EMPTY)
        self.page.wait_for_function("selector => !document.querySelector(selector)", arg=FAILURES)
        self.page.evaluate("window.failuresShown = []")
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def _listen(self, kind: str, text: str) -> None:
        # The editor looks up unknown packs at api.comfy.org, which the host blocks; and it reports a refused prompt
        # with the pack's script among its callers.
        expected = ("api.comfy.org", "PromptExecutionError")
        if kind == "error" and "atelier" in text.lower() and not any(part in text for part in expected):
            self.complaints.append(text)

    def open(self) -> None:
        """Go to the editor, or reload it, and wait until it can be used."""
        self.page.goto(f"http://127.0.0.1:{self._host.port}/")
        self.page.wait_for_function(READY)

    def load(self, graph: dict[str, Any]) -> None:
        """Open a graph in the editor's format, as dropping its file would."""
        self.page.evaluate("graph => app.loadGraphData(graph)", graph)

    def api_graph(self) -> dict[str, Any]:
        """The graph as "Export (API)" writes it."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def missing(self) -> list[str]:
        """Types of nodes in the graph that the editor does not know."""
        return self.page.evaluate(
            "() => app.rootGraph.nodes.filter(node => !LiteGraph.registered_node_types[node.type]).map(n => n.type)")

    def errors(self) -> list[str]:
        """The failures that the editor shows now."""
        return self.page.locator(FAILURES).all_inner_texts()

    def errors_so_far(self) -> list[str]:
        """All failures shown since the page was opened, including those that have disappeared."""
        return self.page.evaluate("window.failuresShown")

    def set_widget(self, node: int, name: str, value: Any) -> None:
        """Write a value into a node's widget."""
        self.page.evaluate("""([node, name, value]) => {
            const widget = app.rootGraph.getNodeById(node).widgets.find(widget => widget.name === name);
            widget.value = value;
            widget.callback?.(value);
        }""", [node, name, value])

    def show(self, node: int, zoom: float = 1.0) -> None:
        """Move the view to a node."""
        self.page.evaluate("""([number, zoom]) => {
            const node = app.rootGraph.getNodeById(number), { ds } = app.canvas;
            ds.scale = zoom;
            ds.offset[0] = 80 / zoom - node.pos[0];
            ds.offset[1] = 110 / zoom - node.pos[1];
            app.canvas.setDirty(true, true);
        }""", [node, zoom])

    def run(self) -> str:
        """Press Run; returns the id of the prompt."""
        answer, value = self._press_run()
        assert answer.ok, value
        return value["prompt_id"]

    def run_refused(self) -> dict[str, Any]:
        """Press Run on a graph that the server refuses as a whole; returns its answer."""
        answer, value = self._press_run()
        assert answer.status == 400, value
        return value

    def _press_run(self) -> tuple[Response, dict[str, Any]]:
        with self.page.expect_response(lambda answer: answer.url.endswith("/api/prompt")
                                       and answer.request.method == "POST") as answer:
            self.page.get_by_test_id("queue-button").click()
        return answer.value, answer.value.json()

    @property
    def panel(self) -> Locator:
        """The training panel (or all of them)."""
        return self.page.locator(".atelier-panel")

    def screenshot(self, name: str) -> Path:
        """Save a screenshot of the page among the artefacts."""
        path = ARTEFACTS / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        self.page.screenshot(path=path)
        return path
