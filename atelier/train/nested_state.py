"""An optimiser's state as tensors and JSON, whatever it is nested in, and back to the last bit.

Optimisers keep what they like: tensors of any type, numbers, and tables of these within each other, as bitsandbytes'
eight-bit ones do since 0.49.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import AtelierError


def flattened(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON, its tensors put into `tensors` by names that begin with `path`.

    Raises:
        AtelierError: it holds something that is no tensor, number, text, list, tuple or table.
    """
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, dict):
        return {"table": [[flattened(key, path, tensors), flattened(item, f"{path}/{key}", tensors)]
                          for key, item in value.items()]}
    if isinstance(value, tuple | list):
        items = [flattened(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise AtelierError(f"The optimiser keeps a {type(value).__name__} in its state ({path}), which cannot be saved.",
                       "Choose another optimizer.")


def nested(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `flattened`."""
    if isinstance(value, list):
        return [nested(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(nested(item, tensors) for item in value["tuple"])
    return {nested(key, tensors): nested(item, tensors) for key, item in value["table"]}


def restore(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load a saved state dict into an optimiser, every tensor in the type that it had.

    torch itself brings floating point states, and with them all others, to the type of their parameter.
    """
    optimizer.load_state_dict(saved)
    indices = [index for group in saved["param_groups"] for index in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in zip(indices, parameters, strict=True):
        state = optimizer.state[parameter] if index in saved["state"] else {}
        for key, value in saved["state"].get(index, {}).items():
            now = state.get(key)
            if isinstance(value, Tensor) and isinstance(now, Tensor) and now.dtype != value.dtype:
                state[key] = value.to(now.device)
