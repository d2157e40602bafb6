"""The panel's routes, asked as the server asks them."""

from __future__ import annotations

import asyncio
import json
from types import ModuleType
from typing import Any

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


class Request:
    """As much of a request as the routes look at."""

    def __init__(self, body: str = "", **query: str) -> None:
        self.body, self.query = body, query

    async def text(self) -> str:
        return self.body


@pytest.fixture
def routes(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The routes, with no session of another test."""
    found = pack_module(pack, "nodes.panel.routes")
    monkeypatch.setattr(found, "sessions", pack_module(pack, "nodes.panel.sessions").Sessions())
    return found


def opened(pack: ModuleType, routes: Any, node: str, *, prompt: str = "p", can_sample: bool = True) -> Any:
    key = pack_module(pack, "nodes.panel.sessions").Key(prompt, node, "w")
    return routes.sessions.open(key, can_sample=can_sample)


def reached(answer: Any) -> list[str]:
    return [one["node"] for one in json.loads(answer.text)["reached"]]


def test_stop_and_sample_reach_running_trainings_alone(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    routes, module = pack_module(pack, "nodes.panel.routes"), pack_module(pack, "nodes.panel.sessions")
    sessions = [module.Session(module.Key("p", node, "w"), can_sample=node != "mute")
                for node in ("over", "on", "mute")]
    sessions[0].end("complete")
    monkeypatch.setattr(routes.sessions, "find", lambda **_: sessions)
    assert reached(asyncio.run(routes._post_sample(Request()))) == ["on"]
    assert reached(asyncio.run(routes._post_stop(Request()))) == ["on", "mute"]


def test_the_panel_gets_the_sessions_it_asks_for(pack: ModuleType, routes: Any) -> None:
    for node in ("4", "7"):
        opened(pack, routes, node)

    def listed(**query: str) -> list[str]:
        answer = asyncio.run(routes._get_sessions(Request(**query)))
        return [session["node"] for session in json.loads(answer.text)["sessions"]]

    assert listed() == ["4", "7"]
    assert listed(node="7") == listed(node="7", prompt="p", workflow="w") == ["7"]
    assert [listed(**{name: "other"}) for name in ("prompt", "node", "workflow", "run")] == [[]] * 4


@pytest.mark.parametrize("step", ["", "x", "-1", "1.5", "9" * 19, "9" * 5000])
def test_what_is_no_number_of_a_step_is_refused(routes: Any, step: str) -> None:
    answer = asyncio.run(routes._get_sample(Request(step=step)))
    assert answer.status == 400
    assert json.loads(answer.text)["error"] == f"{step[:18]!r} is not the number of a step."


def test_a_sample_picture_is_that_of_its_step_and_node(pack: ModuleType, routes: Any) -> None:
    def answer(**query: str) -> Any:
        return asyncio.run(routes._get_sample(Request(**query)))

    for node in ("4", "7"):
        session = opened(pack, routes, node)
        session.measure({"step": 3})
        session.add_sample(f"drawn by {node}".encode())
    found = answer(step="3", node="4")
    assert (found.status, found.content_type, found.body) == (200, "image/jpeg", b"drawn by 4")
    assert answer(step="3").body == b"drawn by 7", "the newest"
    for query in ({"step": "4"}, {"step": "3", "node": "5"}, {"step": "9" * 18}):
        missing = answer(**query)
        assert missing.status == 404
        assert json.loads(missing.text)["error"] == f"There is no sample picture of step {query['step']}."


@pytest.mark.parametrize("route", ["_post_stop", "_post_sample", "_post_continue"])
@pytest.mark.parametrize("body", ["{", "[]", "4", '{"node": 4}', '{"run": null}', "[" * 100_000])
def test_a_body_that_selects_nothing_is_refused(pack: ModuleType, routes: Any, route: str, body: str) -> None:
    """Were it taken for an empty one, it would stop every training."""
    from aiohttp import web

    session = opened(pack, routes, "4")
    with pytest.raises(web.HTTPBadRequest) as error:
        asyncio.run(getattr(routes, route)(Request(body)))
    told = json.loads(error.value.text or "")
    assert error.value.content_type == "application/json"
    assert told["error"].startswith("The body is not understood (") and "Send nothing" in told["do"]
    assert not session.stop_requested()


def test_a_body_selects_one_of_several_trainings(pack: ModuleType, routes: Any) -> None:
    sessions = [opened(pack, routes, node) for node in ("4", "7")]
    assert reached(asyncio.run(routes._post_stop(Request('{"node": "7", "more": 1}')))) == ["7"]
    assert [session.stop_requested() for session in sessions] == [False, True]


def test_the_answer_says_what_happens_next(pack: ModuleType, routes: Any) -> None:
    def told(route: str) -> str:
        return json.loads(asyncio.run(getattr(routes, route)(Request())).text)["message"]

    assert told("_post_stop") == told("_post_sample") == "Nothing is being trained."
    assert told("_post_continue") == "No training was stopped and kept."
    assert routes.sessions.continued == 0
    mute = opened(pack, routes, "4", can_sample=False)
    assert "its sample prompt is none" in told("_post_sample")
    opened(pack, routes, "7")
    assert told("_post_sample") == "A picture is drawn after the running step."
    assert told("_post_stop").startswith("Training ends after the running step")
    mute.end("stopped by user")
    answer = asyncio.run(routes._post_continue(Request()))
    assert reached(answer) == ["4"], "the other has not ended"
    assert json.loads(answer.text)["message"] == "Queue the graph again, and training goes on."
    assert routes.sessions.continued == 1
    assert opened(pack, routes, "4").continues


def test_every_route_is_added_to_the_hosts_table(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from aiohttp import web

    for name, expected in (
            ("routes", {("GET", "/atelier/training"), ("GET", "/atelier/training/sample"),
                        ("POST", "/atelier/training/stop"), ("POST", "/atelier/training/sample"),
                        ("POST", "/atelier/training/continue")}),
            ("folder_routes", {("GET", "/atelier/folders"), ("POST", "/atelier/folders")})):
        module, table = pack_module(pack, f"nodes.panel.{name}"), web.RouteTableDef()
        monkeypatch.setattr(module.web_server, "route_table", lambda table=table: table)
        module.add_routes()
        assert {(route.method, route.path) for route in table} == expected  # pyright: ignore[reportAttributeAccessIssue]
        monkeypatch.setattr(module.web_server, "route_table", lambda: None)
        module.add_routes()
