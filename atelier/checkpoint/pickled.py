"""Pickled PyTorch checkpoints, read without ever running the code they may carry."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AtelierError
from .header import SAFETENSORS_NAMES

if TYPE_CHECKING:
    from .source import Entry


def read_pickle(path: Path) -> dict[str, Entry]:
    """The tensors of a `.ckpt`, `.pt`, `.pth` or `.bin` file, memory-mapped where the format allows.

    Weights may be nested under "state_dict", as Lightning saves them; optimiser states beside them are left alone.

    Raises:
        AtelierError: the file is damaged, holds code, or holds no weights.
    """
    import torch

    from .source import Entry

    state = _load(path)
    for key in ("state_dict", "model", "module"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)} \
        if isinstance(state, Mapping) else {}
    if not tensors:
        raise AtelierError(f"{path} holds no weights.", "Choose a Stable Diffusion checkpoint.")
    return {str(name): Entry(SAFETENSORS_NAMES[str(t.dtype).removeprefix("torch.")], tuple(t.shape), t.detach())
            for name, t in tensors.items()}


_DAMAGED = (RuntimeError, EOFError, ValueError, LookupError, OSError, TypeError, AttributeError, AssertionError,
            OverflowError, struct.error)
"""What the unpickler raises on bytes that are no pickle: it interprets them until something gives."""


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
    """What training frameworks leave in checkpoints beside the weights: plain numbers of numpy and one settings
    object."""
    import numpy

    class ModelCheckpoint:
        """Stands for Lightning's callback, whose state is read and thrown away."""

    ModelCheckpoint.__module__ = "pytorch_lightning.callbacks.model_checkpoint"
    ModelCheckpoint.__qualname__ = "ModelCheckpoint"
    scalar = numpy.float64(0).__reduce__()[0]
    return [ModelCheckpoint, scalar, numpy.dtype, numpy.dtypes.Float64DType]
