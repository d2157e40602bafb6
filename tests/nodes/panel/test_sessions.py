"""The sessions that the server keeps for the training panel."""

from __future__ import annotations

import json
import math
import threading
from types import ModuleType
from typing import Any

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


@pytest.fixture
def module(pack: ModuleType) -> ModuleType:
    return pack_module(pack, "nodes.panel.sessions")


@pytest.fixture
def session(module: ModuleType) -> Any:
    return module.Session(module.Key("p", "4", "w"), can_sample=True)


def test_a_long_curve_is_averaged_up_to_its_last_step(module: ModuleType) -> None:
    curve = module.Curve(max_points=64)
    for step in range(1, 10_001):
        curve.add(step, step / 10)
    points = curve.points()
    assert 16 < len(points) <= 64
    assert [step for step, _ in points] == sorted({step for step, _ in points})
    assert points[-1][0] == 10_000
    # Each value is the mean over the stride that ends at its step.
    stride = points[1][0] - points[0][0]
    assert all(step / 10 - stride / 10 <= value <= step / 10 for step, value in points)


def test_a_short_curve_is_exact(module: ModuleType) -> None:
    curve = module.Curve()
    for step in range(1, 100):
        curve.add(step, math.sin(step))
    assert curve.points() == [(step, math.sin(step)) for step in range(1, 100)]


def test_news_and_snapshot_hold_every_point_once(session: Any) -> None:
    session.phase("training", 10)
    for step in range(1, 4):
        session.measure({"step": step, "loss": 1 / step, "lr": 0.1})
    first = session.news()
    session.measure({"step": 4, "loss": 0.2})
    session.measure({"step": 4, "validation_loss": 0.3})
    session.measure({"step": 4, "fidelity": 0.25, "likeness": 0.5})
    second = session.news()
    assert [step for step, _ in first["losses"] + second["losses"]] == [1, 2, 3, 4]
    assert (first["validation"], second["validation"]) == ([], [(4, 0.3)])
    assert (second["fidelity"], second["likeness"]) == ([(4, 0.25)], [(4, 0.5)])
    assert (first["number"], second["number"]) == (1, 2)
    snapshot = session.snapshot()
    assert snapshot["losses"] == first["losses"] + second["losses"]
    assert snapshot["number"] == 2, "a snapshot is not counted as a message"
    assert snapshot["values"]["lr"] == 0.1


def test_nan_and_infinity_are_left_out(session: Any) -> None:
    session.measure({"step": 1, "loss": math.nan, "validation_loss": math.inf, "lr": math.nan})
    text = json.dumps(session.snapshot(), allow_nan=False)
    assert json.loads(text)["losses"] == []


def test_requests_end_with_the_run(session: Any) -> None:
    assert not session.stop_requested()
    session.request_stop()
    session.request_stop()
    session.request_sample()
    session.request_sample()
    assert session.stop_requested()
    assert [session.take_sample_request() for _ in range(2)] == [True, False]
    session.end("stopped by user")
    assert not session.stop_requested()
    session.request_stop()
    session.request_sample()
    assert not session.stop_requested()
    assert not session.take_sample_request()


def test_the_number_of_sample_pictures_is_limited(module: ModuleType, session: Any) -> None:
    for step in range(100):
        session.measure({"step": step})
        session.add_sample(bytes([step]))
    assert len(session.snapshot()["samples"]) == module.MAX_SAMPLES
    assert session.sample(99) == bytes([99])
    assert session.sample(0) is None


def test_a_node_has_one_session_and_running_sessions_are_kept(module: ModuleType) -> None:
    sessions = module.Sessions()
    running = sessions.open(module.Key("p0", "1", "w"), can_sample=False)
    for number in range(100):
        sessions.open(module.Key(f"p{number}", f"n{number}"), can_sample=False).end("complete")
    assert len(sessions.find()) == module.MAX_SESSIONS
    assert sessions.find(node="1") == [running]
    again = sessions.open(module.Key("p1", "1", "w"), can_sample=False)
    assert sessions.find(node="1", workflow="w") == [again]
    elsewhere = sessions.open(module.Key("p2", "1", "other"), can_sample=False)
    assert sessions.find(node="1") == [again, elsewhere]


def test_runs_of_a_node_in_one_prompt_are_distinct(module: ModuleType) -> None:
    """Given a list, the host runs a node once for each element: same prompt, same node."""
    sessions = module.Sessions()
    first = sessions.open(module.Key("p", "4", "w"), can_sample=True)
    first.measure({"step": 2})
    first.add_sample(b"first")
    second = sessions.open(module.Key("p", "4", "w"), can_sample=True)
    runs = [session.news()["run"] for session in (first, second)]
    assert runs[0] != runs[1]
    assert second.snapshot()["run"] == runs[1]
    assert sessions.find(run=runs[1]) == [second]
    assert sessions.find(run=runs[0]) == [], "its picture would be shown as the second run's"


def test_taking_a_sample_request_holds_the_lock(session: Any) -> None:
    """A request between reading and clearing the flag would be lost."""
    session.request_sample()
    taken: list[bool] = []
    taker = threading.Thread(target=lambda: taken.append(session.take_sample_request()))
    with session._lock:
        taker.start()
        taker.join(0.05)
        assert not taken
    taker.join()
    assert taken == [True]


def test_only_a_stopped_session_can_be_asked_to_go_on(module: ModuleType) -> None:
    sessions, key = module.Sessions(), module.Key("p", "4", "w")
    for status, continues in (("complete", False), ("stopped by user", True)):
        earlier = sessions.open(key, can_sample=False)
        earlier.end(status)
        sessions.request_continue([earlier])
        assert sessions.open(module.Key("p", "5", "w"), can_sample=False).continues is False, "another node"
        assert sessions.open(key, can_sample=False).continues is continues
    assert sessions.open(key, can_sample=False).continues is False, "once"
    assert sessions.continued == 2


def test_asking_nobody_to_go_on_runs_nothing_again(module: ModuleType) -> None:
    sessions = module.Sessions()
    sessions.request_continue([])
    assert sessions.continued == 0
