"""An ordered `map` on a thread pool with bounded look-ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(function: Callable[[T], R], items: Iterable[T], ahead: int) -> Generator[R, None, None]:
    """`map` on threads: results come in the order of `items`, at most `ahead` of them computed in advance.

    Threads help because Pillow releases the GIL while it decodes and resizes. Close the iterator
    (`contextlib.closing`) when leaving early, to cancel pending items.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="atelier-pictures") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
