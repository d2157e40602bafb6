"""The memory of a training step of any network, counted before training starts.

The network is copied without its values, given adapters, and run once on fake tensors, which have a shape and a type
but no data. Every tensor that autograd would keep for the backward pass is added up.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


@dataclass(frozen=True, kw_only=True)
class StepCount:
    """Bytes of a training step."""

    weights: int
    """Of all frozen weights, as they are stored."""
    blocks: Mapping[str, int]
    """Of the frozen weights of each block, by path in the order of the network."""
    adapters: int
    """Of the adapters with their gradients, and of float32 copies of both with the two moments of AdamW."""
    kept: int
    """Of what autograd keeps between forward and backward pass."""
    kept_with_checkpointing: int
    """The same where each block is forgotten and computed again: its inputs, and all of the largest block."""


class Ghost:
    """A module's copy on fake tensors.

    Args:
        module: Not changed. Wherever its weights are and however they are stored, the copy's are plain ones on the CPU,
            of the type that a quantised weight stands for.
        change: Done to the copy while it is on the meta device: adapters are put on it, say.
        mode: Of another ghost that computes with this one.
    """

    def __init__(self, module: nn.Module, change: Callable[[nn.Module], object] = lambda module: None,
                 mode: FakeTensorMode | None = None) -> None:
        self.mode = mode or FakeTensorMode()
        tensors = [*module.parameters(), *module.buffers()]
        self.module: nn.Module = copy.deepcopy(module, {id(tensor): _empty(tensor) for tensor in tensors})
        change(self.module)
        self.own: set[int] = set()
        for inner in self.module.modules():
            tables: Any = (inner._parameters, inner._buffers)
            for table in tables:
                table.update({name: self._fake(tensor) for name, tensor in table.items() if tensor is not None})

    def fake(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A fake tensor of another's shape, and of its type if no other is given."""
        with self.mode:
            return torch.empty(tensor.shape, dtype=dtype or tensor.dtype)

    def _fake(self, tensor: Tensor) -> Tensor:
        made = self.fake(tensor)
        self.own.add(made.untyped_storage()._cdata)
        return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def count_step(ghost: Ghost, original: nn.Module, blocks: Collection[str], forward: Callable[[], object],
               dtype: torch.dtype) -> StepCount:
    """Run a ghost forward and count.

    Args:
        ghost: With adapters.
        original: The network that it is a copy of, without adapters.
        blocks: Paths of those that checkpointing forgets.
        forward: Runs the ghost on fake tensors, and returns what the loss is taken of.
        dtype: The arithmetic type.

    Raises:
        RuntimeError: the inputs do not fit the network, or it does something that fake tensors cannot.
    """
    outer, inner = _Kept(ghost.own), [0]
    everything = _Kept(ghost.own)

    def counted(run: Callable[..., Any]) -> Callable[..., Any]:
        def block(*args: Any, **kwargs: Any) -> Any:
            for tensor in (*args, *kwargs.values()):
                if isinstance(tensor, Tensor):
                    outer.give(tensor)
            kept = _Kept(ghost.own)

            def both(tensor: Tensor) -> _Saved:
                return everything.add(kept.add(_Saved(tensor)))

            with torch.autograd.graph.saved_tensors_hooks(both, _tensor):
                result = run(*args, **kwargs)
            inner.append(kept.bytes)
            return result
        return block

    def outside(tensor: Tensor) -> _Saved:
        return everything.add(outer.add(_Saved(tensor)))

    for path in blocks:
        module = ghost.module.get_submodule(path)
        module.forward = counted(module.forward)
    ghost.module.train()
    with ghost.mode, torch.autograd.graph.saved_tensors_hooks(outside, _tensor):
        result = forward()
    kept, kept_with_checkpointing = everything.bytes, outer.bytes + max(inner)
    del result  # until here it held what autograd saves
    trained = sum(parameter.numel() for parameter in ghost.module.parameters() if parameter.requires_grad)
    doubled = 0 if dtype == torch.float32 else 2 * dtype.itemsize
    return StepCount(weights=_stored(original),
                     blocks={path: _stored(original.get_submodule(path)) for path in blocks},
                     adapters=trained * (doubled + 4 * 4), kept=kept,
                     kept_with_checkpointing=kept_with_checkpointing)


def _stored(module: nn.Module) -> int:
    return sum(map(stored_bytes, module.parameters()))


def stored_bytes(tensor: Tensor) -> int:
    """The bytes that a tensor's values take, of a quantised one with its scales."""
    if is_traceable_wrapper_subclass(tensor):
        return sum(stored_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.numel() * tensor.itemsize


class _Saved:
    """A tensor that is saved for as long as autograd holds this."""

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Kept:
    """Adds up the storages that autograd saves, each once, but for the weights themselves.

    What it has let go when `bytes` is asked for does not count: DoRA takes the norm of a product whose graph is dropped
    at once.
    """

    def __init__(self, own: set[int]) -> None:
        self._own = own
        self._saved: weakref.WeakSet[_Saved] = weakref.WeakSet()
        self._given: list[Tensor] = []

    def add(self, saved: _Saved) -> _Saved:
        self._saved.add(saved)
        return saved

    def give(self, tensor: Tensor) -> None:
        """Count a tensor that is kept in any case."""
        self._given.append(tensor)

    @property
    def bytes(self) -> int:
        storages = [tensor.untyped_storage() for tensor in (*self._given, *(one.tensor for one in self._saved))]
        return sum({storage._cdata: storage.nbytes() for storage in storages
                    if storage._cdata not in self._own}.values())


def _empty(tensor: Tensor) -> Tensor:
    made = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made


def _tensor(saved: _Saved) -> Tensor:
    return saved.tensor
