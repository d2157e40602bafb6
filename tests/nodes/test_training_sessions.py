"""What the server keeps of a training for its panel, and how often it speaks of it."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


@pytest.fixture
def module(pack: ModuleType) -> ModuleType:
    return pack_module(pack, "nodes.sessions")


@pytest.fixture
def session(module: ModuleType) -> Any:
    return module.Session(module.Key("p", "4", "w"), can_sample=True)


class Clock:
    """Time that passes when told, and timers that then go off."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, act))

    def pass_to(self, time: float) -> None:
        while due := sorted((timer for timer in self.timers if timer[0] <= time), key=lambda timer: timer[0]):
            self.timers.remove(due[0])
            self.now = due[0][0]
            due[0][1]()
        self.now = time


@pytest.mark.parametrize("every", [0.01, 0.1, 0.3])
def test_messages_are_few_and_the_last_is_never_lost(pack: ModuleType, every: float) -> None:
    clock, seen, sent = Clock(), 0, []
    coalescer = pack_module(pack, "nodes.coalesce").Throttle(
        lambda: sent.append((clock.now, seen)), clock=lambda: clock.now, later=clock.later)
    for change in range(1, 101):
        clock.pass_to(100 + change * every)
        seen = change
        coalescer.notify()
    clock.pass_to(clock.now + 1)
    times = [time for time, _ in sent]
    assert min(b - a for a, b in pairwise(times)) >= 0.25 - 1e-9
    assert sent[-1][1] == 100
    assert sent[0] == (100 + every, 1), "the first change waits for nothing"


def test_the_end_is_told_at_once_and_once(pack: ModuleType) -> None:
    clock, changes, sent = Clock(), [], []
    coalescer = pack_module(pack, "nodes.coalesce").Throttle(
        lambda: sent.append((clock.now, len(changes))), clock=lambda: clock.now, later=clock.later)
    for change in (coalescer.notify, coalescer.notify, coalescer.flush):
        changes.append(change)
        change()
    clock.pass_to(200)
    assert sent == [(100, 1), (100, 3)]


def test_a_run_that_ends_says_so_before_its_node_does(pack: ModuleType, session: Any,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    module, told = pack_module(pack, "nodes.training_monitor"), []
    monkeypatch.setattr(module.host, "send_event", lambda name, data: told.append(data["status"]))
    progress = module.TrainingProgress(session)
    progress.phase("training", 1)
    progress.end("complete")
    assert told == ["running", "complete"]


def test_nothing_overtakes_what_another_thread_is_sending(pack: ModuleType) -> None:
    """Otherwise the end would be told before what led there, and that after the host has said that all is done."""
    gathered, resume, out = threading.Event(), threading.Event(), []

    def send() -> None:
        name = threading.current_thread().name
        if name == "timer":
            gathered.set()
            resume.wait()
        out.append(name)

    coalescer = pack_module(pack, "nodes.coalesce").Throttle(send)
    timer, end = (threading.Thread(target=act, name=name, daemon=True) for act, name in (
        (coalescer.notify, "timer"), (coalescer.flush, "end")))
    timer.start()
    gathered.wait()
    end.start()
    end.join(0.05)
    assert not out
    resume.set()
    timer.join()
    end.join()
    assert out == ["timer", "end"]


def test_a_long_curve_keeps_its_shape_and_its_end(module: ModuleType) -> None:
    curve = module.Curve(most=64)
    for step in range(1, 10_001):
        curve.add(step, step / 10)
    points = curve.points()
    assert 16 < len(points) <= 64
    assert [step for step, _ in points] == sorted({step for step, _ in points})
    assert points[-1][0] == 10_000
    # A mean over the steps that end here: never beyond the newest of them, never older than one stride.
    stride = points[1][0] - points[0][0]
    assert all(step / 10 - stride / 10 <= value <= step / 10 for step, value in points)


def test_a_short_curve_is_kept_exactly(module: ModuleType) -> None:
    curve = module.Curve()
    for step in range(1, 100):
        curve.add(step, math.sin(step))
    assert curve.points() == [(step, math.sin(step)) for step in range(1, 100)]


def test_news_and_snapshot_together_tell_everything_once(session: Any) -> None:
    session.phase("training", 10)
    for step in range(1, 4):
        session.measure({"step": step, "loss": 1 / step, "lr": 0.1})
    first = session.news()
    session.measure({"step": 4, "loss": 0.2})
    session.measure({"step": 4, "validation_loss": 0.3})
    second = session.news()
    assert [step for step, _ in first["losses"] + second["losses"]] == [1, 2, 3, 4]
    assert (first["validation"], second["validation"]) == ([], [(4, 0.3)])
    assert (first["number"], second["number"]) == (1, 2)
    snapshot = session.snapshot()
    assert snapshot["losses"] == first["losses"] + second["losses"]
    assert snapshot["number"] == 2, "a snapshot is no message"
    assert snapshot["values"]["lr"] == 0.1


def test_numbers_that_json_has_no_word_for_are_left_out(session: Any) -> None:
    session.measure({"step": 1, "loss": math.nan, "validation_loss": math.inf, "lr": math.nan})
    text = json.dumps(session.snapshot(), allow_nan=False)
    assert json.loads(text)["losses"] == []


def test_requests_live_only_while_the_run_does(session: Any) -> None:
    assert not session.stop_requested()
    session.ask_stop()
    session.ask_stop()
    session.ask_sample()
    session.ask_sample()
    assert session.stop_requested()
    assert [session.take_sample_request() for _ in range(2)] == [True, False]
    session.end("stopped by user")
    assert not session.stop_requested()
    session.ask_stop()
    session.ask_sample()
    assert not session.stop_requested()
    assert not session.take_sample_request()


def test_few_pictures_are_kept(module: ModuleType, session: Any) -> None:
    for step in range(100):
        session.measure({"step": step})
        session.picture(bytes([step]))
    assert len(session.snapshot()["samples"]) == module.PICTURES
    assert session.sample(99) == bytes([99])
    assert session.sample(0) is None


def test_a_node_has_one_session_and_running_ones_never_go(module: ModuleType) -> None:
    sessions = module.Sessions()
    running = sessions.open(module.Key("p0", "1", "w"), can_sample=False)
    for number in range(100):
        sessions.open(module.Key(f"p{number}", f"n{number}"), can_sample=False).end("complete")
    assert len(sessions.find()) == module.SESSIONS
    assert sessions.find(node="1") == [running]
    again = sessions.open(module.Key("p1", "1", "w"), can_sample=False)
    assert sessions.find(node="1", workflow="w") == [again]
    elsewhere = sessions.open(module.Key("p2", "1", "other"), can_sample=False)
    assert sessions.find(node="1") == [again, elsewhere]


def test_each_run_of_a_node_in_one_prompt_is_told_apart(module: ModuleType) -> None:
    """Given a list, the host runs a node once for each element: same prompt, same node."""
    sessions = module.Sessions()
    first = sessions.open(module.Key("p", "4", "w"), can_sample=True)
    first.measure({"step": 2})
    first.picture(b"first")
    second = sessions.open(module.Key("p", "4", "w"), can_sample=True)
    runs = [session.news()["run"] for session in (first, second)]
    assert runs[0] != runs[1]
    assert second.snapshot()["run"] == runs[1]
    assert sessions.find(run=runs[1]) == [second]
    assert sessions.find(run=runs[0]) == [], "its picture would be taken for the second's"


def test_a_sample_request_is_taken_and_made_one_at_a_time(session: Any) -> None:
    """One made between reading and clearing would be lost."""
    session.ask_sample()
    taken: list[bool] = []
    taker = threading.Thread(target=lambda: taken.append(session.take_sample_request()))
    with session._lock:
        taker.start()
        taker.join(0.05)
        assert not taken
    taker.join()
    assert taken == [True]
