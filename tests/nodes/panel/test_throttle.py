"""The throttle: few messages, in order, and the last one at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


class Clock:
    """A simulated clock with timers."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def schedule(self, seconds: float, action: Callable[[], None]) -> None:
        self.timers.append((self.now + seconds, action))

    def advance_to(self, time: float) -> None:
        while due := sorted((timer for timer in self.timers if timer[0] <= time), key=lambda timer: timer[0]):
            self.timers.remove(due[0])
            self.now = due[0][0]
            due[0][1]()
        self.now = time


@pytest.mark.parametrize("every", [0.01, 0.1, 0.3])
def test_messages_keep_the_interval_and_the_last_is_never_lost(pack: ModuleType, every: float) -> None:
    clock, seen, sent = Clock(), 0, []
    throttle = pack_module(pack, "nodes.panel.throttle").Throttle(
        lambda: sent.append((clock.now, seen)), clock=lambda: clock.now, schedule=clock.schedule)
    for change in range(1, 101):
        clock.advance_to(100 + change * every)
        seen = change
        throttle.notify()
        assert len(clock.timers) <= 1, "a timer is a thread: one waits, however many changes there are"
    clock.advance_to(clock.now + 1)
    times = [time for time, _ in sent]
    assert min(b - a for a, b in pairwise(times)) >= 0.25 - 1e-9
    assert sent[-1][1] == 100
    assert sent[0] == (100 + every, 1), "the first change is sent at once"


def test_flush_sends_at_once_and_cancels_the_timer(pack: ModuleType) -> None:
    clock, changes, sent = Clock(), [], []
    throttle = pack_module(pack, "nodes.panel.throttle").Throttle(
        lambda: sent.append((clock.now, len(changes))), clock=lambda: clock.now, schedule=clock.schedule)
    for change in (throttle.notify, throttle.notify, throttle.flush):
        changes.append(change)
        change()
    clock.advance_to(200)
    assert sent == [(100, 1), (100, 3)]


def test_flush_waits_for_a_send_in_another_thread(pack: ModuleType) -> None:
    """Otherwise the end would be sent before earlier changes, and these after the host reports the node as done."""
    collected, resume, sent = threading.Event(), threading.Event(), []

    def send() -> None:
        name = threading.current_thread().name
        if name == "timer":
            collected.set()
            resume.wait()
        sent.append(name)

    throttle = pack_module(pack, "nodes.panel.throttle").Throttle(send)
    timer, end = (threading.Thread(target=action, name=name, daemon=True) for action, name in (
        (throttle.notify, "timer"), (throttle.flush, "end")))
    timer.start()
    collected.wait()
    end.start()
    end.join(0.05)
    assert not sent
    resume.set()
    timer.join()
    end.join()
    assert sent == ["timer", "end"]
