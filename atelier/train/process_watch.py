"""Notices that another process of a training is silent, as of a machine that lost its power or its network.

A process that ends breaks its connections, and all notice at once. One that vanishes leaves the others waiting; so each
says from time to time, through the store in which they met, that it is alive.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import Store, TCPStore  # pyright: ignore[reportPrivateImportUsage]

INTERVAL = 5.0
"""Seconds between two signs of life."""
SILENCE = 45.0
"""Seconds without one after which a process counts as lost."""

log = logging.getLogger("atelier")


class ProcessWatch:
    """Ends this process when another one is lost: what it waits for would never come.

    What was learnt since the last saved state, two minutes at most, is lost with it.

    Args:
        store: Shared by all processes; used by nothing else.
        rank: Number of this process.
        count: Number of all.
        end: Ends the process.
    """

    def __init__(self, store: Store, rank: int, count: int, end: Callable[[int], None] = os._exit) -> None:
        self._store, self._rank, self._end = store, rank, end
        self._others = [other for other in range(count) if other != rank]
        self._heard: dict[int, tuple[bytes, float]] = {other: (b"", time.monotonic()) for other in self._others}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="process watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Watch no longer."""
        self._over.set()
        self._thread.join(timeout=INTERVAL)

    def _watch(self) -> None:
        signs = 0
        while not self._over.wait(INTERVAL):
            signs += 1
            try:
                self._store.set(_key(self._rank), str(signs))
                for other in self._others:
                    if self._store.check([_key(other)]):
                        self._hear(other, self._store.get(_key(other)))
            except RuntimeError as error:  # the process that keeps the store is gone, or on its way out
                log.debug("The store of the processes does not answer: %s", error)
            now = time.monotonic()
            silent = [other for other, (_, at) in self._heard.items() if now - at > SILENCE]
            if silent and not self._over.is_set():
                log.error("Process %s of this training has been silent for %.0f seconds, so this one ends. The state "
                          "that was saved last is kept: start all processes again to go on.",
                          ", ".join(map(str, silent)), SILENCE)
                self._end(1)
                return

    def _hear(self, other: int, sign: bytes) -> None:
        if sign != self._heard[other][0]:
            self._heard[other] = (sign, time.monotonic())


def _key(rank: int) -> str:
    return f"atelier/alive/{rank}"


def watch_processes(rank: int, count: int) -> ProcessWatch:
    """Watch the processes of this training, by a connection of its own to the store where they met."""
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False,
                     wait_for_workers=False, timeout=timedelta(seconds=SILENCE))
    return ProcessWatch(store, rank, count)
