"""The state of a run on disk: one safetensors file, from which training goes on bit for bit.

Random numbers need no state: noise, timesteps, order and dropout are derived from (seed, step), see
`atelier.train.bucket_sampler`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..checkpoint.write import write_tensors
from ..errors import AtelierError
from ..files import atomic_file
from .early_stopping import EarlyStopping
from .history import History

if TYPE_CHECKING:
    from .trainer import Trainer


def save_state(path: Path, trainer: Trainer) -> None:
    """Write everything `load_state` needs, whole or not at all.

    Raises:
        AtelierError: the disk is full or the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for role, values in (("weight", trainer.adapters.masters), ("average", trainer.average), ("best", trainer.best)):
        for index, tensor in enumerate(values or []):
            tensors[f"{role}/{index}"] = tensor
    packed = trainer.optimizer.state_dict()
    scalars: dict[str, Any] = {}
    for index, entries in packed["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                scalars[f"{index}/{key}"] = value
    facts = {"step": trainer.step, "history": trainer.history.as_dict(),
             "early_stopping": asdict(trainer.early_stopping), "epoch_losses": trainer.epoch_losses,
             "loss_scale": trainer.loss_scale,
             "groups": packed["param_groups"], "scalars": scalars}
    with atomic_file(path) as part:
        write_tensors(part, tensors, {"atelier": json.dumps(facts)})


def load_state(path: Path, trainer: Trainer) -> None:
    """Put a saved state into `trainer`, which was built from the same configuration.

    Raises:
        AtelierError: the file is damaged or belongs to another configuration.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # Cloned out of the memory map, which ends here: an open map would lock the file on Windows, and the next
            # save could not take its place.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 (not a mapping)
            facts = json.loads(file.metadata()["atelier"])
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise AtelierError(f"The saved training state {path} cannot be read ({error}).",
                           "Delete that file to start the run again from its beginning.") from error
    trainer.adapters.load(_numbered(tensors, "weight"))
    trainer.average = _on_device(_numbered(tensors, "average"), trainer) or None
    trainer.best = _on_device(_numbered(tensors, "best"), trainer) or None
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/", 2)
            state.setdefault(int(index), {})[name] = tensor
    for key, value in facts["scalars"].items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = value
    groups = facts["groups"]
    for group in groups:  # JSON has lists where the optimiser wants tuples
        group["betas"] = tuple(group["betas"])
    trainer.optimizer.load_state_dict({"state": state, "param_groups": groups})
    trainer.step = facts["step"]
    trainer.history = History.from_dict(facts["history"])
    trainer.early_stopping = EarlyStopping(**facts["early_stopping"])
    trainer.epoch_losses = list(facts["epoch_losses"])
    trainer.loss_scale = facts["loss_scale"]


def _numbered(tensors: dict[str, Tensor], role: str) -> list[Tensor]:
    count = sum(key.startswith(f"{role}/") for key in tensors)
    return [tensors[f"{role}/{index}"] for index in range(count)]


def _on_device(tensors: list[Tensor], trainer: Trainer) -> list[Tensor]:
    return [tensor.to(trainer.device, torch.float32) for tensor in tensors]
