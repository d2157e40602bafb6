"""Processes that train together, on one machine or several: torch.distributed, as torchrun and `accelerate launch`
start it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import AtelierError
from ..progress import Interrupted
from .devices import pick_device
from .process_watch import watch_processes
from .processes import ALONE, OtherProcessFailed, Processes

_INTERRUPTED, _FAILED = 1, 2
_OWN_COLLECTIVES = {"cuda": "nccl", "xpu": "xccl"}
"""What adds up on a kind of device. Decisions, and the sums of other devices, go through gloo on the processor: it
waits for no card, and notices at once when a process has ended."""
PATIENCE = timedelta(hours=12)
"""How long a process waits for another that is alive: one may draw or encode while the others have nothing to do."""


class ProcessGroup(Processes):
    """One of several processes of a training. Made by `join_processes`.

    Args:
        rank: Its number among all.
        count: Number of all.
        device: Where this process trains.
    """

    def __init__(self, rank: int, count: int, device: torch.device) -> None:
        self.rank, self.count, self.device = rank, count, device

    @contextmanager
    def together(self) -> Iterator[None]:
        """See `Processes.together`."""
        try:
            yield
        except OtherProcessFailed:  # nobody is left to be told
            raise
        except Exception as error:
            self._worst(_INTERRUPTED if isinstance(error, Interrupted) else _FAILED)
            raise
        outcome = self._worst(0)
        if outcome == _INTERRUPTED:
            raise Interrupted
        if outcome:
            raise OtherProcessFailed("Another process of this training failed.", "Its message says why.")

    def any(self, flag: bool) -> bool:
        """See `Processes.any`."""
        return bool(self._worst(int(flag)))

    def exchange(self, value: Any) -> list[Any]:
        """See `Processes.exchange`."""
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with _reachable():
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
            dist.all_gather(sizes, torch.tensor([own.numel()]))
            longest = max(int(size) for size in sizes)
            rows = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.count)]
            dist.all_gather(rows, torch.cat([own, own.new_zeros(longest - own.numel())]))
        # JSON, not pickles: what comes over a network must not run.
        return [json.loads(row[:int(size)].numpy().tobytes()) for row, size in zip(rows, sizes, strict=True)]

    def from_first(self, make: Callable[[], Any]) -> Any:
        """See `Processes.from_first`."""
        value = None
        with self.together():
            if self.first:
                value = make()
        return self.exchange(value)[0]

    def file_of_first(self, read: Callable[[], bytes]) -> bytes:
        """See `Processes.file_of_first`."""
        content = bytearray()
        with self.together():
            if self.first:
                content = bytearray(read())
        size = self.exchange(len(content))[0]
        if not size:
            return b""
        values = torch.frombuffer(content, dtype=torch.uint8) if self.first else torch.zeros(size, dtype=torch.uint8)
        with _reachable():
            dist.broadcast(values, 0)
        return values.numpy().tobytes()

    def add_up(self, values: Tensor) -> None:
        """See `Processes.add_up`."""
        with _reachable():
            if values.device.type == "cpu" or values.device.type in _OWN_COLLECTIVES:
                dist.all_reduce(values)
            else:
                moved = values.cpu()
                dist.all_reduce(moved)
                values.copy_(moved)

    def _worst(self, outcome: int) -> int:
        """The largest number that any process gives."""
        values = torch.tensor([outcome])
        with _reachable():
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return int(values)


@contextmanager
def _reachable() -> Iterator[None]:
    """Say what it means when a collective fails."""
    try:
        yield
    except RuntimeError as error:
        raise OtherProcessFailed(
            f"Another process of this training has ended or cannot be reached ({str(error).splitlines()[0]}).",
            "Look at what it said. What was learnt is kept: start all processes again to go on.") from error


def wanted_processes() -> int:
    """How many processes the launcher of this one started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def join_processes(device: str) -> Iterator[tuple[Processes, str]]:
    """Meet the other processes that a launcher started with this one, and part at the end.

    Args:
        device: As `pick_device` takes it; "auto" and a kind such as "cuda" give each process of a machine a card of its
            own.

    Yields:
        The processes, and the name of this one's device.

    Raises:
        AtelierError: a machine has fewer cards than processes, or the others do not come.
    """
    if wanted_processes() == 1:
        yield ALONE, device
        return
    own = _own_device(device)
    collectives = _OWN_COLLECTIVES.get(own.type)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    try:
        dist.init_process_group(f"cpu:gloo,{own.type}:{collectives}" if collectives else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise AtelierError(f"The processes of this training do not find each other ({str(error).splitlines()[0]}).",
                           "Start all of them with accelerate launch or torchrun, with the same address and port."
                           ) from error
    rank, count = dist.get_rank(), dist.get_world_size()
    watch = watch_processes(rank, count)
    try:
        yield ProcessGroup(rank, count, own), str(own)
    finally:
        watch.close()
    # Not after an error: the others learn of it when this process ends, and taking leave could wait for them.
    dist.destroy_process_group()


def _own_device(device: str) -> torch.device:
    picked, number = pick_device(device), int(os.environ.get("LOCAL_RANK", "0"))
    if picked.index is not None or picked.type not in ("cuda", "xpu"):
        return picked
    cards = getattr(torch, picked.type).device_count()
    if number >= cards:
        raise AtelierError(f"{number + 1} processes or more were started on a machine with {cards} cards.",
                           "Start as many processes as there are cards (--num_processes, --nproc_per_node).")
    return torch.device(picked.type, number)
