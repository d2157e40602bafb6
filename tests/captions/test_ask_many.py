"""Pictures are asked about on several threads, in order, and what waits is interrupted with the rest."""

from __future__ import annotations

import threading

import pytest

from atelier.captions.ask_many import WorkerProgress, ask_many
from atelier.progress import Interrupted


def test_a_worker_that_waits_is_interrupted_when_the_caller_is() -> None:
    workers, waiting = WorkerProgress(), threading.Event()
    ended: list[str] = []

    def ask(item: int) -> int:
        if item == 0:
            return 0
        waiting.set()
        for _ in range(3000):  # at most thirty seconds, where nothing interrupts it
            try:
                workers.check()
            except Interrupted:
                ended.append("interrupted")
                raise
            if workers.stopped.wait(0.01):
                continue
        ended.append("went on")
        return item

    def check() -> None:
        if waiting.is_set():
            raise Interrupted

    with pytest.raises(Interrupted):
        list(ask_many(ask, range(4), 2, workers, check))
    assert ended and set(ended) == {"interrupted"}
