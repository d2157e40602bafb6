"""Open Model: a model file or folder as a handle for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from . import sockets
from .host import folders
from .host.progress import HostProgress
from .model_widgets import prediction_input
from .validation import check

_FOLDER_PREFIX = "diffusers: "
"""Marks the diffusers folders among the names of checkpoints."""


class OpenModel(io.ComfyNode):
    """Opens a model file or folder as a handle, without a copy."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        names = folders.model_names("checkpoints") + [_FOLDER_PREFIX + name for name in folders.diffusers_names()]
        return io.Schema(
            node_id="AtelierOpenModel",
            display_name="Open Model",
            category="Atelier/model",
            description="A checkpoint or a diffusers folder for training, as it lies on the disk. No copy is made: the "
                        "node to begin with. Convert Checkpoint is for a folder that other programs need, or for "
                        "another precision.",
            search_aliases=["checkpoint", "diffusers", "load model"],
            inputs=[
                io.Combo.Input("model", options=names,
                               tooltip="A file in models/checkpoints or a folder in models/diffusers."),
                prediction_input(),
            ],
            outputs=[sockets.DiffusersModel.Output(display_name="model",
                                                   tooltip="For Train LoRA, Load for Sampling or Export Checkpoint.")],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool | str:
        """Report before the run that the model is missing."""
        return check(_path, model)

    @classmethod
    def fingerprint_inputs(cls, model: str | None = None, **_: Any) -> str:
        """Change when the file does."""
        return folders.disk_state(_path(model)) if model else ""

    @classmethod
    def execute(cls, model: str, prediction_type: str) -> io.NodeOutput:
        """Read the header and the fingerprint."""
        from ..atelier.models.open import open_model

        progress = HostProgress()
        return io.NodeOutput(open_model(_path(model), prediction_type=prediction_type, progress=progress))


def _path(name: str | None) -> Path:
    name = name or ""  # None in a graph saved on a machine without models
    if name.startswith(_FOLDER_PREFIX):
        return folders.diffusers_path(name.removeprefix(_FOLDER_PREFIX))
    return folders.model_path("checkpoints", name)
