"""A run's state on disk: one safetensors file, from which training resumes bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..checkpoint.write import write_tensors
from ..errors import AtelierError
from ..files import atomic_file
from .run_state import RunState
from .trainer import Trainer


def save_state(path: Path, trainer: Trainer, state: RunState) -> None:
    """Write everything `load_state` needs, whole or not at all.

    Raises:
        AtelierError: the disk is full or the folder cannot be written.
    """
    trained = trainer.state_dict()
    tensors: dict[str, Tensor] = {}
    for role in ("weight", "average"):
        for index, tensor in enumerate(trained[role]):
            tensors[f"{role}/{index}"] = tensor
    scalars: dict[str, Any] = {}
    for index, entries in trained["optimizer"]["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                scalars[f"{index}/{key}"] = value
    facts = {**state.as_dict(), "total": trainer.total, "processes": trainer.began_with,
             "groups": trained["optimizer"]["param_groups"],
             "scalars": scalars}
    with atomic_file(path) as part:
        write_tensors(part, tensors, {"atelier": json.dumps(facts)})


def load_state(path: Path, trainer: Trainer) -> RunState:
    """Load a saved state into `trainer`, which was built from the same request, and return the run's part of it.

    Raises:
        AtelierError: the file is damaged or belongs to another request.
    """
    facts, tensors = _read(path, with_tensors=True)
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
    trainer.load_state_dict({"weight": _numbered(tensors, "weight"), "average": _numbered(tensors, "average"),
                             "optimizer": {"state": state, "param_groups": groups}})
    return RunState.from_dict(facts)


def read_progress(path: Path) -> tuple[int, int]:
    """(steps done, steps that the run was to do) of a saved state. Reads the header alone.

    Raises:
        AtelierError: the file is damaged.
    """
    facts, _ = _read(path, with_tensors=False)
    return int(facts["step"]), int(facts["total"])


def read_processes(path: Path) -> int:
    """How many processes began the run of a saved state. Reads the header alone.

    Raises:
        AtelierError: the file is damaged.
    """
    facts, _ = _read(path, with_tensors=False)
    return int(facts.get("processes", 1))


def _read(path: Path, *, with_tensors: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            # Cloned out of the memory map, which ends here: an open map would lock the file on Windows, and the next
            # save could not take its place.
            names = file.keys() if with_tensors else ()
            tensors = {key: file.get_tensor(key).clone() for key in names}
            return json.loads(file.metadata()["atelier"]), tensors
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise AtelierError(f"The saved training state {path} cannot be read ({error}).",
                           "Delete that file to start the run again from its beginning.") from error


def _numbered(tensors: dict[str, Tensor], role: str) -> list[Tensor]:
    count = sum(key.startswith(f"{role}/") for key in tensors)
    return [tensors[f"{role}/{index}"] for index in range(count)]
