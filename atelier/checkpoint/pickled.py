"""Pickled PyTorch checkpoints, read without ever running the code they may carry."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AtelierError
from .entry import Entry
from .header import SAFETENSORS_NAMES

if TYPE_CHECKING:
    from torch import Tensor

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
"""Endings of pickled files, in lower case."""

WEIGHT_ENDINGS = (".safetensors", *PICKLES)
"""Endings that a file of weights has, and no folder."""


def read_pickle(path: Path) -> dict[str, Entry]:
    """The tensors of a `.ckpt`, `.pt`, `.pth` or `.bin` file, memory-mapped where the format allows.

    Weights may be nested under "state_dict", as Lightning saves them; optimiser states beside them are left alone.

    Raises:
        AtelierError: the file is damaged, holds code, or holds no weights.
    """
    import torch

    state = _load(path)
    for key in ("state_dict", "model", "module"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)} \
        if isinstance(state, Mapping) else {}
    if not tensors:
        raise AtelierError(f"{path} holds no weights.", "Choose a Stable Diffusion checkpoint or LoRA.")
    for name, tensor in tensors.items():
        if _dtype(tensor) not in SAFETENSORS_NAMES or tensor.layout is not torch.strided or tensor.is_meta:
            kind = "empty" if tensor.is_meta else _dtype(tensor) if tensor.layout is torch.strided else "sparse"
            raise AtelierError(f"{path} holds {str(name)!r} as a tensor that is {kind}, which is not supported.",
                               "Convert the file to float16, bfloat16 or float32 with the program that wrote it.")
    return {str(name): Entry(SAFETENSORS_NAMES[_dtype(t)], tuple(t.shape), t.detach()) for name, t in tensors.items()}


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


_DAMAGED = (RuntimeError, EOFError, ValueError, LookupError, OSError, TypeError, AttributeError, AssertionError,
            OverflowError, struct.error)
"""Errors of the unpickler on bytes that are no pickle: it interprets them until one operation fails."""


def _load(path: Path) -> Any:
    import torch

    if not path.is_file():
        raise AtelierError(f"{path} cannot be read: no such file.", "Choose an existing file.")
    with torch.serialization.safe_globals(_harmless_globals()):
        try:
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:
                # The format from before PyTorch 1.6 cannot be mapped.
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise AtelierError(f"{path} holds more than weights, and loading it could run code that it brings along.",
                               "Use a .safetensors version of this model.") from error
        except _DAMAGED as error:
            raise AtelierError(f"{path} is damaged or is not a PyTorch file.", "Download or copy it again.") from error


def _harmless_globals() -> list[Any]:
    """Harmless objects that training frameworks save with the weights: numpy scalars and one callback's state."""
    import numpy

    class ModelCheckpoint:
        """Stands in for Lightning's callback, whose state is ignored."""

    ModelCheckpoint.__module__ = "pytorch_lightning.callbacks.model_checkpoint"
    ModelCheckpoint.__qualname__ = "ModelCheckpoint"
    # Written by numpy 1 and read under numpy 2, or the other way round: the same function under another name.
    scalars = [_renamed(numpy.float64(0).__reduce__()[0], module)
               for module in ("numpy.core.multiarray", "numpy._core.multiarray")]
    return [ModelCheckpoint, *scalars, numpy.dtype, *(type(numpy.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8",
                                                                                           "?"))]


def _renamed(scalar: Any, module: str) -> Any:
    """numpy's constructor of scalars, under its name in `module`."""
    def construct(*arguments: Any) -> Any:
        return scalar(*arguments)

    construct.__module__, construct.__name__, construct.__qualname__ = module, "scalar", "scalar"
    return construct
