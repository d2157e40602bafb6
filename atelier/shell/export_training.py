"""Writes a training as a folder that the shell of another machine takes: configuration, pictures, captions, masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..dataset.portable import SET_FILE, write_portable
from ..dataset.types import TrainingSet
from ..files import atomic_folder, write_text
from ..models.handle import DiffusersModel
from ..progress import Progress
from ..toml_files import toml_value
from ..train.request.request import PARTS, TrainRequest

CONFIG = "train.toml"
"""Name of the configuration in the folder."""

_HEAD = """\
# A training to do on another machine. Put the model beside this file under the name that stands here, and run
#     python -m atelier train train.toml
# or on a machine with two cards
#     accelerate launch --multi_gpu --num_processes 2 -m atelier train train.toml
# The finished file, loras/{name}.safetensors, goes back into models/loras of ComfyUI.
"""


def export_training(folder: Path, name: str, model: DiffusersModel, data: TrainingSet, request: TrainRequest,
                    progress: Progress) -> Path:
    """Write the training into a new folder, whole or not at all.

    Args:
        folder: The folder; an earlier one of this path is left alone, and the new one gets a number.
        name: Of the LoRA.
        model: Stays where it is: its name and fingerprint are written.
        data: Pictures and captions.
        request: What to train.
        progress: Shown the copying; may interrupt it.

    Returns:
        The written folder.

    Raises:
        AtelierError: the disk is full or the folder cannot be written.
    """
    number, target = 1, folder
    while target.exists():  # results may lie in it meanwhile
        number += 1
        target = folder.with_name(f"{folder.name}-{number}")
    with atomic_folder(target) as part:
        write_portable(data, part, progress)
        write_text(part / CONFIG, _HEAD.format(name=name) + training_toml(name, model, request))
    return target


def next_steps(folder: Path, model: DiffusersModel) -> str:
    """What to do with a written folder, for a person."""
    return (f"{folder}\n1. Copy this folder to the other machine, and the model {model.path} into it.\n"
            f"2. Run there: python -m atelier train {CONFIG}\n"
            "3. Copy the file in its folder loras back into models/loras.")


def training_toml(name: str, model: DiffusersModel, request: TrainRequest) -> str:
    """The configuration of a training, without presets: every value that is not the default."""
    top: dict[str, Any] = {"name": name, "model": model.path.name, "model_hash": model.fingerprint,
                           "prediction_type": model.prediction_type}
    top |= {"steps": request.steps} if request.steps else {"epochs": request.epochs}
    top["seed"] = request.seed
    changed = {part: _changed(getattr(request, part), config()) for part, config in PARTS.items()}
    lora = changed.pop("lora")
    options = {key: value for values in changed.values() for key, value in values.items()}
    return "\n".join([*_lines(top), "", "[data]", *_lines({"set": SET_FILE}), "", "[lora]", *_lines(lora), "",
                      "[options]", *_lines(options), ""])


def _changed(values: Any, defaults: Any) -> dict[str, Any]:
    usual = asdict(defaults)
    return {name: value for name, value in asdict(values).items() if value != usual[name]}


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {toml_value(value)}" for name, value in values.items()]
