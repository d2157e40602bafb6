"""Convert Checkpoint: a checkpoint to a diffusers folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from comfy_api.latest import io

from ..atelier.convert.options import ConvertOptions
from . import sockets
from .host import folders
from .host.progress import HostProgress
from .model_widgets import precision_input, prediction_input
from .result_cache import find_or_reserve
from .validation import check

_OPTIONS = ConvertOptions()


class ConvertCheckpoint(io.ComfyNode):
    """Converts a checkpoint to a diffusers folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierConvertCheckpoint",
            display_name="Convert Checkpoint",
            category="Atelier/model",
            description="Writes a checkpoint as a diffusers folder in models/diffusers, with no network. The same "
                        "conversion is done once and found again. To train or sample without a copy of the model, use "
                        "Open Model.",
            search_aliases=["diffusers", "safetensors", "ckpt", "convert model"],
            is_output_node=True,
            inputs=[
                io.Combo.Input("checkpoint", options=folders.model_names("checkpoints"),
                               tooltip="A .safetensors or .ckpt file in models/checkpoints."),
                precision_input(folder=True),
                prediction_input(),
            ],
            outputs=[
                sockets.DiffusersModel.Output(display_name="model", tooltip="For Train LoRA or Load for Sampling."),
                io.String.Output(display_name="report", tooltip="What was written, in a few lines."),
            ],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str | None = None) -> bool | str:
        """Report before the run that the checkpoint is missing."""
        return check(_source, checkpoint)

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str | None = None, **_: Any) -> str:
        """Change when the file does."""
        return folders.disk_state(_source(checkpoint)) if checkpoint else ""

    @classmethod
    def execute(cls, checkpoint: str, precision: str, prediction_type: str) -> io.NodeOutput:
        """Convert, or find the folder written by an earlier conversion with the same options."""
        from ..atelier.convert.folder import to_folder
        from ..atelier.models.open import open_model

        source = _source(checkpoint)
        ending = "" if precision == _OPTIONS.precision else f"-{precision}"
        # A graph saved on another system may have the other separator.
        name = PurePosixPath(checkpoint.replace("\\", "/")).with_suffix("")
        target = folders.model_folder("diffusers") / f"{name}{ending}"
        progress = HostProgress()
        result = find_or_reserve(target, "folder", open_model(source, progress=progress).fingerprint, precision,
                                 prediction_type)
        report = result.report
        if report is None:
            options = ConvertOptions(precision=precision, prediction_type=prediction_type)
            report = to_folder(source, result.path, options, progress).text()
            result.remember(report)
        model = open_model(result.path, progress=progress)
        progress.say(report)
        return io.NodeOutput(model, report, ui={"text": (report,)})


def _source(name: str) -> Path:
    return folders.model_path("checkpoints", name)
