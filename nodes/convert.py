"""Nodes that turn checkpoints into diffusers folders and back."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from comfy_api.latest import io

from ..atelier.convert.options import PRECISIONS, ConvertOptions
from ..atelier.files import file_name
from . import host, sockets
from .checks import verdict
from .made import find_or_reserve

_OPTIONS = ConvertOptions()


def _precision() -> io.Input:
    return io.Combo.Input("precision", options=list(PRECISIONS), default=_OPTIONS.precision,
                          tooltip="Type of the written weights. keep copies them as they are, fp16 halves fp32.")


class ConvertCheckpoint(io.ComfyNode):
    """A checkpoint as a diffusers folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierConvertCheckpoint",
            display_name="Convert Checkpoint",
            category="Atelier/model",
            description="Writes a checkpoint as a diffusers folder in models/diffusers, with no network. The same "
                        "conversion is done once and found again.",
            search_aliases=["diffusers", "safetensors", "ckpt", "convert model"],
            is_output_node=True,
            inputs=[
                io.Combo.Input("checkpoint", options=host.model_names("checkpoints"),
                               tooltip="A .safetensors or .ckpt file in models/checkpoints."),
                _precision(),
                io.Combo.Input("prediction_type", options=["auto", "epsilon", "v_prediction"],
                               default=_OPTIONS.prediction_type, advanced=True,
                               tooltip="What the model predicts. Only few files say so; auto takes what is usual for "
                                       "the family."),
            ],
            outputs=[
                sockets.DiffusersModel.Output(display_name="model", tooltip="For Train LoRA or Load for Sampling."),
                io.String.Output(display_name="report", tooltip="What was written, in a few lines."),
            ],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str | None = None) -> bool | str:
        """Say before the run that the checkpoint is missing."""
        return verdict(_source, checkpoint)

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str | None = None, **_: Any) -> str:
        """Change when the file does."""
        return host.disk_state(_source(checkpoint)) if checkpoint else ""

    @classmethod
    def execute(cls, checkpoint: str, precision: str, prediction_type: str) -> io.NodeOutput:
        """Convert, or find the folder that the same conversion made."""
        from ..atelier.convert.folder import to_folder
        from ..atelier.models.open import open_model

        source = _source(checkpoint)
        ending = "" if precision == _OPTIONS.precision else f"-{precision}"
        # A graph of another system may have the other slash.
        name = PurePosixPath(checkpoint.replace("\\", "/")).with_suffix("")
        wanted = host.model_folder("diffusers") / f"{name}{ending}"
        progress = host.HostProgress()
        made = find_or_reserve(wanted, "folder", open_model(source, progress=progress).fingerprint, precision,
                               prediction_type)
        report = made.report
        if report is None:
            options = ConvertOptions(precision=precision, prediction_type=prediction_type)
            report = to_folder(source, made.path, options, progress).text()
            made.remember(report)
        model = open_model(made.path, progress=progress)
        progress.say(report)
        return io.NodeOutput(model, report, ui={"text": (report,)})


class ExportCheckpoint(io.ComfyNode):
    """A model as a single file, with or without a LoRA in it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierExportCheckpoint",
            display_name="Export Checkpoint",
            category="Atelier/model",
            description="Writes a model as one .safetensors file in models/checkpoints, if wanted with a LoRA merged "
                        "into its weights.",
            search_aliases=["save checkpoint", "merge lora", "safetensors"],
            is_output_node=True,
            inputs=[
                sockets.DiffusersModel.Input("model", tooltip="From Convert Checkpoint or Open Model."),
                io.String.Input("name", default="my-model",
                                tooltip="Name of the file, without ending. An existing file is never overwritten: the "
                                        "new one gets a number."),
                _precision(),
                io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.05,
                               tooltip="How strongly the LoRA is merged."),
                sockets.LoraModel.Input("lora", optional=True, tooltip="A LoRA to merge into the weights."),
            ],
            outputs=[
                io.String.Output(display_name="checkpoint name", tooltip="As core's Load Checkpoint lists the file."),
                io.String.Output(display_name="report", tooltip="What was written, in a few lines."),
            ],
        )

    @classmethod
    def execute(cls, model: Any, name: str, precision: str, strength: float, lora: Any = None) -> io.NodeOutput:
        """Write the file, or find the one that the same request made."""
        from ..atelier.convert.single_file import to_checkpoint
        from ..atelier.lora.bake import merge_of, state_digest
        from ..atelier.lora.file import parse_lora
        from ..atelier.models.layout import read_layout

        merged = lora if strength else None
        folder = host.model_folder("checkpoints")
        made = find_or_reserve(folder / f"{file_name(name)}.safetensors", "file", model.fingerprint,
                               model.prediction_type, precision,
                               f"{state_digest(merged)} at {strength}" if merged is not None else "")
        progress, report = host.HostProgress(), made.report
        if report is None:
            options = ConvertOptions(precision=precision, prediction_type=model.prediction_type)
            merge, lines = None, []
            if merged is not None:
                found = parse_lora(merged, "The LoRA")
                merge = merge_of(found.weights, read_layout(model.path), strength)
                lines = [f"LoRA merged at {strength:g}: {found.matched} of {found.keys} keys matched", found.left_out()]
            report = to_checkpoint(model.path, made.path, options, progress, merge=merge).text()
            report = "\n".join([report, *filter(None, lines)])
            made.remember(report)
        progress.say(report)
        return io.NodeOutput(str(made.path.relative_to(folder)), report, ui={"text": (report,)})


def _source(name: str) -> Path:
    return host.model_path("checkpoints", name)


NODES: list[type[io.ComfyNode]] = [ConvertCheckpoint, ExportCheckpoint]
