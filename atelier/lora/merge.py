"""Put a LoRA's deltas into a loaded module."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..errors import AtelierError
from .weights import Adapter


@torch.no_grad()
def merge_into(module: nn.Module, adapters: Mapping[str, Adapter], strength: float = 1.0) -> int:
    """Change `module`'s weights in place: W ← W + strength · (W' − W), computed in float32.

    Args:
        module: A UNet or text encoder as diffusers and transformers build it.
        adapters: By module path within it, as `atelier.lora.weights.select` gives them.
        strength: 0 leaves every weight bit-equal.

    Returns:
        The number of layers changed.

    Raises:
        AtelierError: an adapter names a layer the module does not have, or its shape differs.
    """
    if strength == 0:
        return 0
    for path, adapter in adapters.items():
        bias = path.endswith(".bias")
        weight = getattr(_layer(module, path.removesuffix(".bias")), "bias" if bias else "weight", None)
        if weight is None or not adapter.fits(tuple(weight.shape)):
            raise AtelierError(f"The LoRA's layer {path} does not fit this model.",
                               "Use the LoRA with the family of models it was trained on.")
        weight.copy_(adapter.applied(weight, strength))
    return len(adapters)


def _layer(module: nn.Module, path: str) -> nn.Module | None:
    for name in (path, path.removeprefix("text_model.")):  # transformers ≥ 5.6 flattened CLIPTextModel
        try:
            return module.get_submodule(name)
        except AttributeError:
            continue
    return None
