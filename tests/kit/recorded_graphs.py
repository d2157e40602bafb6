"""Stands for CUDA graphs where there is no card: records the operations of work, and does them again on the same
tensors without calling its Python, as a card would.

What a recording may not do raises, as it does on a card: reading a value, copying from or to the processor, drawing
random numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

_READS = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero", "bincount", "unique_dim"}
_DRAWS = {"rand", "randn", "randint", "bernoulli", "bernoulli_", "uniform_", "normal_", "native_dropout", "randperm"}
_MAKES = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class _Recorder(TorchDispatchMode):
    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.done = device, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if name in _READS | _DRAWS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        result = func(*args, **kwargs)
        tensors = [one for one in tree_flatten((args, kwargs, result))[0] if isinstance(one, Tensor)]
        if any(one.device.type != self.device.type and one.dim() for one in tensors):
            raise RuntimeError(f"operation not permitted when stream is capturing: {name} on another device")
        if name not in _MAKES:
            self.done.append((func, args, kwargs, tree_flatten(result)[0]))
        return result


class RecordedGraphs:
    """`atelier.train.cuda_graphs.Graphs`; counts what it is asked for.

    Args:
        device: Where the work computes.
        took: What `seconds` answers of recorded work; plain work takes one second.
    """

    def __init__(self, device: torch.device, took: float = 0.5) -> None:
        self.device, self.took = device, took
        self.warmed = self.captured = self.replayed = 0
        self._replays: list[Callable[[], None]] = []

    def warm_up(self, work: Callable[[], None]) -> None:
        for _ in range(3):
            work()
        self.warmed += 1

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        recorder = _Recorder(self.device)
        with recorder:
            work()
        self.captured += 1

        @torch.no_grad()
        def replay() -> None:
            self.replayed += 1
            for func, args, kwargs, results in recorder.done:
                again = tree_flatten(func(*args, **kwargs))[0]
                for recorded, fresh in zip(results, again, strict=True):
                    if isinstance(recorded, Tensor) and recorded.data_ptr() != fresh.data_ptr():
                        recorded.copy_(fresh)

        self._replays.append(replay)
        return replay

    def seconds(self, work: Callable[[], None]) -> float:
        return self.took if work in self._replays else 1.0
