"""Export Training: a training as a folder that the shell of another machine takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui

from ..atelier.files import file_name
from . import sockets
from .host import folders
from .host.allowed import check_written
from .host.progress import HostProgress
from .training_request import training_inputs, training_request
from .validation import check

_FOLDER = "training"
"""The folder below ComfyUI's output folder where exports go."""


class ExportTraining(io.ComfyNode):
    """Writes what Train LoRA would do to a folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierExportTraining",
            display_name="Export Training",
            category="Atelier/training",
            description="Writes what Train LoRA would do to a folder for another machine, or for several cards: "
                        "configuration, pictures, captions, masks, and the model's name and hash. There the shell "
                        "trains it.",
            search_aliases=["multi gpu", "cloud training", "distributed", "accelerate", "torchrun", "kohya toml"],
            is_output_node=True,
            inputs=[
                sockets.DiffusersModel.Input("model", tooltip="The model to fine-tune. Its name and hash are written; "
                                                              "the file you copy yourself."),
                *training_inputs(),
            ],
            outputs=[
                io.String.Output(display_name="folder", tooltip="The written folder, in ComfyUI's output folder."),
                io.String.Output(display_name="report", tooltip="What to do with it, in a few lines."),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        """The name must be that of a file."""
        return check(file_name, name)

    @classmethod
    def execute(cls, model: Any, training_set: Any, name: str, preset: str, length: int, unit: str, seed: int,
                lora_config: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None,
                sample_prompt: str = "") -> io.NodeOutput:
        """Copy the pictures and write the configuration."""
        from ..atelier.shell.export_training import export_training, next_steps

        request = training_request(training_set, preset, length, unit, seed, lora_config, options, sample_prompt)
        # The model's path is this machine's: there it is looked for beside the configuration.
        request = request.override({"score_model": Path(request.samples.score_model).name})
        target = check_written(folders.output_folder() / _FOLDER / file_name(name))
        opened = sockets.on_disk(model)
        folder = export_training(target, file_name(name), opened, training_set, request, HostProgress())
        text = next_steps(folder, opened)
        return io.NodeOutput(str(folder), text, ui=ui.PreviewText(text))
