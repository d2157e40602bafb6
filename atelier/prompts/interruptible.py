"""Run a coroutine in another thread and check for an interrupt ten times a second."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

POLL = 0.1
"""Seconds between checks."""


def run(work: Callable[[], Coroutine[Any, Any, T]], check: Callable[[], None]) -> T:
    """The result of `work()`, run in an event loop of its own; `check` is called from this thread meanwhile.

    It needs a thread of its own because the caller's thread may have a running event loop, as the host's has.

    Raises:
        Whatever `check` raises: the work is then cancelled, which closes its connections.
        Whatever the work raises.
    """
    started = threading.Event()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        running.append((asyncio.get_running_loop(), task))
        started.set()
        return await work()

    pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="atelier-wait")
    future = pool.submit(lambda: asyncio.run(main()))
    try:
        while not concurrent.futures.wait([future], timeout=POLL).done:
            check()
        return future.result()
    finally:
        if not future.done():
            started.wait()
            loop, task = running[0]
            with suppress(RuntimeError):  # The loop closed by itself in this instant.
                loop.call_soon_threadsafe(task.cancel)
        pool.shutdown(wait=False)
