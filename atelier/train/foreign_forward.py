"""Make networks that were written for sampling alone trainable: without changes in place, and block by block.

Such networks add to tensors in place, which autograd refuses where it has saved them. Worse, a block that changes its
own input is computed again from the changed input under gradient checkpointing, and its gradients are silently wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from ..errors import AtelierError

_OUT_OF_PLACE: dict[Any, Callable[..., Tensor]] = {Tensor.add_: torch.add, Tensor.sub_: torch.sub}
"""`a += b` rebinds the name to what is returned, so that a new tensor serves. Products are left: autograd computes them
right, or says that it cannot."""


class OutOfPlace(TorchFunctionMode):
    """Answers sums in place by ones that leave their operand as it is.

    A bare `a.add_(b)`, whose result nobody takes, would be lost: whoever uses this compares the network's output with
    and without it.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: Mapping[str, Any] | None = None) -> Any:
        """The result of `func`, or of its counterpart out of place in the operand's own type."""
        plain = _OUT_OF_PLACE.get(func)
        if plain is None:
            return func(*args, **(kwargs or {}))
        return plain(*args, **(kwargs or {})).to(args[0].dtype)


@contextmanager
def trainable_forward(during: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Compute without changes in place, and within what `during` makes."""
    with during(), OutOfPlace():
        yield


def checkpoint_blocks(blocks: Mapping[str, nn.Module],
                      during: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
    """Forget what each block keeps for its gradients, and compute it again for them (https://arxiv.org/abs/1604.06174).

    Args:
        blocks: Their `forward` is replaced; it acts where gradients are wanted.
        during: Surroundings of the forward pass; the second one happens in the backward pass, outside of them.
    """
    for block in blocks.values():
        block.forward = _Redone(block.forward, during)


class _Redone:
    def __init__(self, forward: Callable[..., Any], during: Callable[[], AbstractContextManager[object]]) -> None:
        self.forward, self.during = forward, during

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        return checkpoint(self._inside, *args, use_reentrant=False, **kwargs)

    def _inside(self, *args: Any, **kwargs: Any) -> Any:
        given = [tensor for tensor in (*args, *kwargs.values()) if isinstance(tensor, Tensor)]
        versions = [tensor._version for tensor in given]
        with trainable_forward(self.during):
            result = self.forward(*args, **kwargs)
        if versions != [tensor._version for tensor in given]:
            raise AtelierError("A block of this network changes its own input, so that its gradients would be wrong "
                               "with gradient checkpointing.", "Set gradient checkpointing to \"off\".")
        return result
