"""Export Checkpoint: a model to a single file, optionally with a LoRA merged into it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..atelier.convert.options import ConvertOptions
from ..atelier.files import file_name
from . import sockets
from .host import folders
from .host.progress import HostProgress
from .model_widgets import precision_input
from .result_cache import find_or_reserve


class ExportCheckpoint(io.ComfyNode):
    """Writes a model as a single file, with or without a LoRA merged into it."""

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
                precision_input(),
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
        """Write the file, or find the one written by an earlier run with the same inputs."""
        from ..atelier.convert.single_file import to_checkpoint
        from ..atelier.lora.bake import merge_of, state_digest
        from ..atelier.lora.file import parse_lora
        from ..atelier.models.layout import read_layout

        model = sockets.on_disk(model)
        merged = lora if strength else None
        folder = folders.model_folder("checkpoints")
        result = find_or_reserve(folder / f"{file_name(name)}.safetensors", "file", model.fingerprint,
                                 model.prediction_type, precision,
                                 f"{state_digest(merged)} at {strength}" if merged is not None else "")
        progress, report = HostProgress(), result.report
        if report is None:
            options = ConvertOptions(precision=precision, prediction_type=model.prediction_type)
            merge, lines = None, []
            if merged is not None:
                parsed = parse_lora(merged, "The LoRA")
                merge = merge_of(parsed.weights, read_layout(model.path), strength)
                lines = [f"LoRA merged at {strength:g}: {parsed.matched} of {parsed.keys} keys matched",
                         parsed.left_out()]
            report = to_checkpoint(model.path, result.path, options, progress, merge=merge).text()
            report = "\n".join([report, *filter(None, lines)])
            result.remember(report)
        progress.say(report)
        return io.NodeOutput(str(result.path.relative_to(folder)), report, ui={"text": (report,)})
