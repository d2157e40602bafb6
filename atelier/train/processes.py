"""The processes of one training: who they are, and how they come to the same decision. This one is alone.

`atelier.train.process_group` has those that train together. What is decided by one process, or differs between them (a
clock, a disk, Ctrl-C), is agreed on through these methods; every process must call them in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ..errors import AtelierError


class OtherProcessFailed(AtelierError):
    """Another process of the same training failed, ended or cannot be reached."""


class Processes:
    """A training in one process, which agrees with itself."""

    rank: int = 0
    """Number of this process, from 0."""
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.rank == 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one process cannot do, none has done: where the block raises in one, it raises in all.

        The block must not call any of these methods.

        Raises:
            Interrupted: another process was interrupted in it.
            OtherProcessFailed: another process failed in it.
        """
        yield

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process."""
        return flag

    def exchange(self, value: Any) -> list[Any]:
        """Every process's `value` (of JSON's types), in the order of their numbers."""
        return [value]

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What `make` returns in the first process (of JSON's types). Where it raises, all raise."""
        return make()

    def file_of_first(self, read: Callable[[], bytes]) -> bytes:
        """The bytes that `read` returns in the first process. Where it raises, all raise."""
        return read()

    def add_up(self, values: Tensor) -> None:
        """Replace `values` by their sum over all processes, equal to the last bit in each."""


ALONE = Processes()
"""The one process of a training that is not shared."""
