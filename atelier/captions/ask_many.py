"""Ask about many things at a time: bounded, results in order, and stopped within a moment."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from ..progress import Interrupted, Progress

T = TypeVar("T")
R = TypeVar("R")

POLL = 0.1
"""Seconds between checks for an interrupt."""


class WorkerProgress(Progress):
    """For the threads that wait: interrupted when the caller's is, and keeps their phase for it to show."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.text = ""

    def check(self) -> None:
        """Raise `Interrupted` once the work was stopped."""
        if self.stopped.is_set():
            raise Interrupted

    def phase(self, name: str, total: int) -> None:
        """Keep the name."""
        self.text = name


def ask_many(function: Callable[[T], R], items: Iterable[T], at_once: int, workers: WorkerProgress,
             check: Callable[[], None]) -> Generator[R, None, None]:
    """`map` on `at_once` threads, results in the order of `items`; the first item is finished before others begin.

    Whatever ends the iteration early (`check` raises, `function` raises, the caller closes the generator) sets
    `workers.stopped`, and what has not begun is never begun.

    Args:
        function: called in threads; it lets `workers` interrupt it.
        items: at most twice `at_once` of them are begun before the first of these is handed on.
        at_once: threads.
        workers: what `function` reports to.
        check: called in this thread while it waits; raises to stop.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="atelier-captions")

    def finished() -> R:
        future = waiting.popleft()
        while not wait([future], timeout=POLL).done:
            check()
        check()
        return future.result()

    try:
        for number, item in enumerate(items):
            waiting.append(pool.submit(function, item))
            if number == 0 or len(waiting) >= 2 * at_once:
                yield finished()
        while waiting:
            yield finished()
    finally:
        workers.stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
