"""Training that starts from a LoRA instead of from nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from ..errors import AtelierError
from ..lora.file import load_lora
from ..lora.low_rank import factors_of
from ..lora.weights import LoraModule, kinds_text, others, plain
from .adapters import Adapters


def start_from(adapters: Adapters, path: Path) -> None:
    """Give untrained adapters the change that a LoRA makes.

    Where its rank is smaller, the further ranks begin untrained; where it is larger, the largest singular values stay.
    Layers that it does not change begin untrained.

    Args:
        adapters: Of kind "lora", as they were made.
        path: A LoRA file or PEFT folder.

    Raises:
        AtelierError: it cannot be read, is a DoRA, or changes layers that are not trained or are of another shape.
    """
    read = load_lora(path)
    if foreign := others(read):
        raise AtelierError(f"{path.name} holds {len(foreign)} of {len(read)} layers of kinds ({kinds_text(foreign)}) "
                           "that training cannot start from.", "Choose a plain LoRA, or make one with Resize LoRA.")
    found = plain(read)
    if any(module.magnitude is not None for module in found.values()):
        raise AtelierError(f"{path.name} is a DoRA, which training cannot start from.", "Choose a plain LoRA.")
    fresh = plain(adapters.weights())
    foreign = [name for name, module in found.items() if name not in fresh
               or (module.up.shape[0], module.down[0].numel()) != (fresh[name].up.shape[0],
                                                                   fresh[name].down[0].numel())]
    if foreign:
        raise AtelierError(f"{path.name} changes {len(foreign)} layers of its {len(found)} that are not trained here "
                           f"(first: {foreign[0]}).",
                           "Choose targets (and train_text_encoder) that hold all its layers, and a LoRA for this "
                           "kind of model.")
    adapters.load(adapters.tensors_of({**fresh, **{name: _as(module, fresh[name]) for name, module in found.items()}}))


def file_digest(path: Path) -> str:
    """Hex digest of a LoRA: what of it counts for a run's identity.

    Raises:
        AtelierError: it cannot be read.
    """
    digest = hashlib.sha256()
    for name, module in sorted(plain(load_lora(path)).items()):
        digest.update(f"{name} {module.alpha}".encode())
        for tensor in (module.up, module.down):
            digest.update(tensor.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _as(module: LoraModule, fresh: LoraModule) -> LoraModule:
    """The change of `module` in the rank and alpha of `fresh`."""
    if module.rank > fresh.rank:
        module = factors_of(module).module(fresh.rank, (fresh.up.shape[0], *fresh.down.shape[1:]))
    down, up = fresh.down.clone(), torch.zeros_like(fresh.up)
    down[:module.rank] = module.down.float().reshape(module.rank, *down.shape[1:])
    scale = (module.alpha / module.rank) / (fresh.alpha / fresh.rank)
    up[:, :module.rank] = (module.up.float() * scale).reshape(up.shape[0], module.rank, *up.shape[2:])
    return LoraModule(down, up, fresh.alpha)
