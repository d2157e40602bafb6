"""Merge a LoRA into a model on its way to a file, tensor by tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..convert.options import Merge
from ..errors import AtelierError
from ..models.layout import ModelLayout
from .names import with_text_model
from .weights import LoraWeights

if TYPE_CHECKING:
    from torch import Tensor


def merge_of(weights: LoraWeights, layout: ModelLayout, strength: float = 1.0) -> Merge:
    """What `atelier.convert.single_file.to_checkpoint` takes to write W + strength · (W' − W) for every adapted layer.

    Args:
        weights: The adapters.
        layout: The model they go into.
        strength: 1 is what was trained.

    Raises:
        AtelierError: an adapter names a layer the model does not have, or whose shape differs.
    """
    modules = {with_text_model(name) + ("" if name.endswith(".bias") else ".weight"): module
               for name, module in weights.items()}
    tensors = {f"{component.folder}.{name}": tensor for component in layout.components.values()
               for name, tensor in component.tensors.items()}
    foreign = [name for name, module in modules.items() if name not in tensors
               or not module.fits(tuple(tensors[name].shape))]
    if foreign:
        raise AtelierError(f"{len(foreign)} of the LoRA's {len(modules)} layers do not fit {layout.path.name} "
                           f"(first: {foreign[0]}).", "Use a LoRA that was trained on a model of this kind.")

    def merge(component: str, name: str) -> Callable[[Tensor], Tensor] | None:
        module = modules.get(f"{component}.{name}")
        return None if module is None else partial(module.applied, strength=strength)

    return merge


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Hex digest of a state dict: names, types, shapes and values."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
