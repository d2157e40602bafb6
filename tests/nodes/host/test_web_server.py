"""What is sent to the host's server, and that its absence is no error."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


@pytest.fixture
def web_server(pack: ModuleType) -> Any:
    return pack_module(pack, "nodes.host.web_server")


def test_texts_events_and_prompts_go_to_the_server(web_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    names = ("send_progress_text", "send_sync", "add_on_prompt_handler")
    server = SimpleNamespace(routes="table", **{
        name: lambda *given, name=name: calls.append((name, *given)) for name in names})
    monkeypatch.setattr(web_server, "_server", lambda: server)
    web_server.send_text("step 1", "4")
    web_server.send_event("atelier.training", {"step": 1})
    web_server.on_prompt(dict)
    assert calls == [("send_progress_text", "step 1", "4"), ("send_sync", "atelier.training", {"step": 1}),
                     ("add_on_prompt_handler", dict)]
    assert web_server.route_table() == "table"


def test_without_a_server_nothing_is_sent(web_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "_server", lambda: None)
    web_server.send_text("step 1", "4")
    web_server.send_event("atelier.training", {})
    web_server.on_prompt(dict)
    assert web_server.route_table() is None


def test_a_progress_writes_on_its_own_node(pack: ModuleType, web_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, str]] = []
    monkeypatch.setattr(web_server, "send_text", lambda text, node: said.append((text, node)))
    progress = pack_module(pack, "nodes.host.progress").HostProgress()
    progress.say("nobody reads this")
    progress._node = "4"
    progress.say("done")
    assert said == [("done", "4")]
