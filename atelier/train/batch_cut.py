"""How a batch is cut over processes and forward passes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BatchCut:
    """The part of each batch that one process computes."""

    at_once: int
    """Pictures that go through the network together at most."""
    rank: int = 0
    """Number of the process."""
    count: int = 1
    """Number of processes."""

    def pieces(self, size: int) -> list[slice]:
        """The pictures, of a batch of `size`, of each forward pass of this process. Processes get equally many, or one
        more or less; of a small batch some may get none."""
        first, last = size * self.rank // self.count, size * (self.rank + 1) // self.count
        return [slice(start, min(start + self.at_once, last)) for start in range(first, last, self.at_once)]
