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
    """As much of a POST as the routes look at."""

    async def text(self) -> str:
        return ""


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
