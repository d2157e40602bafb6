"""Frozen blocks that wait in main memory and come to the device for their passes alone.

Each block's forward pass, which gradient checkpointing runs again in the backward pass, finds its weights on the
device; the next block's are copied meanwhile. Afterwards the device's copies are let go: autograd holds those that it
still needs. The idea is old (Rhu et al. 2016, https://arxiv.org/abs/1602.08124; kohya's `blocks_to_swap`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


class BlockSwap:
    """Keeps the frozen weights of some blocks in main memory.

    Make it before adapters and checkpointing, and move the network to its device within `kept_away`.

    Args:
        blocks: In the order of the network. Their weights must be on the CPU; their `forward` is replaced.
        device: Where they compute.
    """

    def __init__(self, blocks: Mapping[str, nn.Module], device: torch.device) -> None:
        self.device = device
        self._blocks = [_Waiting(block, device) for block in blocks.values()]
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._coming: dict[int, tuple[list[nn.Parameter], torch.cuda.Event | None]] = {}
        self._last = (-1, -1)
        self._follows: dict[tuple[int, int], int] = {}
        for index, block in enumerate(blocks.values()):
            block.forward = self._with_weights(index, block.forward)

    @contextmanager
    def kept_away(self) -> Iterator[None]:
        """While the network is moved to the device: these weights stay where they are."""
        for block in self._blocks:
            block.put([nn.Parameter(torch.empty(0), requires_grad=False)] * len(block.weights))
        try:
            yield
        finally:
            for block in self._blocks:
                block.put(block.weights)

    def _with_weights(self, index: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            block = self._blocks[index]
            block.put(self._arrived(index))
            self._fetch_after(index)
            try:
                return forward(*args, **kwargs)
            finally:  # checkpointing ends a repeated pass by an exception
                block.put(block.weights)
        return run

    def _fetch_after(self, index: int) -> None:
        """Copy the block that is wanted next, as far as the passes before have shown what follows on two blocks."""
        self._follows[self._last] = index
        self._last = (self._last[1], index)
        following = self._follows.get(self._last, -1)
        if following >= 0 and following not in self._coming:
            self._coming.clear()  # the order was another one: at most one block is under way
            self._coming[following] = self._copied(following)

    def _arrived(self, index: int) -> list[nn.Parameter]:
        copies, event = self._coming.pop(index, None) or self._copied(index)
        if event is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(event)
            for weight in copies:
                # Its memory, which the other stream allocated, is not used again before this one has read it.
                on_parts(weight.detach(), lambda part: part.record_stream(current) or part)
        return copies

    def _copied(self, index: int) -> tuple[list[nn.Parameter], torch.cuda.Event | None]:
        weights = self._blocks[index].weights
        if self._stream is None:
            return [_copy(weight, self.device) for weight in weights], None
        with torch.cuda.stream(self._stream):
            copies = [_copy(weight, self.device) for weight in weights]
            event = torch.cuda.Event()
            event.record(self._stream)
        return copies, event


class _Waiting:
    """The frozen weights of one block, and where they belong."""

    def __init__(self, block: nn.Module, device: torch.device) -> None:
        self._places = [(module, name) for module in block.modules()
                        for name, weight in module._parameters.items() if weight is not None]
        self.weights = [module.get_parameter(name) for module, name in self._places]
        if device.type == "cuda":  # is copied from there without the processor waiting for it
            self.weights = [_frozen(on_parts(weight.detach(), Tensor.pin_memory)) for weight in self.weights]
            self.put(self.weights)

    def put(self, weights: Sequence[nn.Parameter]) -> None:
        """Make these the block's weights."""
        for (module, name), weight in zip(self._places, weights, strict=True):
            module._parameters[name] = weight


def _copy(weight: nn.Parameter, device: torch.device) -> nn.Parameter:
    return _frozen(on_parts(weight.detach(), lambda part: part.to(device, non_blocking=True, copy=True)))


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def on_parts(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A tensor changed by what `change` gives for the plain tensors in it: its values, of a quantised one its scales
    too. Asked as a whole, a quantised tensor would answer most operations dequantised."""
    if not is_traceable_wrapper_subclass(tensor):
        return change(tensor)
    names, context = tensor.__tensor_flatten__()
    kind: Any = type(tensor)
    return kind.__tensor_unflatten__({name: on_parts(getattr(tensor, name), change) for name in names}, context,
                                     tensor.size(), tensor.stride())
