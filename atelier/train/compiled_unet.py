"""The UNet compiled by torch.compile, with a fallback to the plain module."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

logger = logging.getLogger("atelier")


def sizes_left_out(sizes: int) -> str:
    """A sentence on pictures that are not compiled, for so many different shapes of batches; "" where all are."""
    import torch._dynamo.config

    limit: int = torch._dynamo.config.recompile_limit  # pyright: ignore[reportPrivateImportUsage]
    if sizes <= limit:
        return ""
    return (f"The batches have {sizes} different shapes. PyTorch compiles the first {limit} of them; the others are "
            "computed without. Fewer bucket sizes, or batch size 1, make fewer shapes.")


def pieces(kind: str) -> str:
    """A sentence on adapters of a kind that PyTorch cannot trace through; "" for others."""
    return ("With DoRA the UNet is compiled in pieces, broken at each adapted layer, where PyTorch cannot trace PEFT's "
            "code." if kind == "dora" else "")


class CompiledUNet:
    """Calls a module, compiled if `wanted` and as long as compiling works.

    torch.compile compiles during the first forward and backward pass; both may raise one of `errors()`. Each shape of
    picture is compiled separately. Results equal the plain module's up to rounding.

    Args:
        module: Called with the same arguments.
        wanted: False calls the module as it is.
    """

    def __init__(self, module: nn.Module, wanted: bool) -> None:
        self.module = module
        self._call: Callable[..., Any] = torch.compile(module, dynamic=False) if wanted else module

    @property
    def compiled(self) -> bool:
        """Whether calls go to compiled kernels."""
        return self._call is not self.module

    def errors(self) -> tuple[type[Exception], ...]:
        """Exceptions of a failed compilation; none for a plain module."""
        if not self.compiled:
            return ()
        from torch._dynamo.exc import TorchDynamoException  # a second's worth of imports
        try:
            from torch._inductor.exc import InductorError  # newer releases wrap what the code generator raises
        except ImportError:
            return (TorchDynamoException,)
        return TorchDynamoException, InductorError

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module."""
        return self._call(*args, **kwargs)

    def give_up(self, error: Exception) -> None:
        """Call the plain module from now on, and say why."""
        logger.warning("The model cannot be compiled here, so training goes on without: %s",
                       str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
        self._call = self.module
