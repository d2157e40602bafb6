"""Extract LoRA: what fine-tuning changed in a model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import sockets
from .host.progress import HostProgress
from .lora_files import lora_outputs, written_inputs, written_once


class ExtractLora(io.ComfyNode):
    """Writes the LoRA that turns one model into another as nearly as its rank allows."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierExtractLora",
            display_name="Extract LoRA",
            category="Atelier/lora",
            description="Writes what fine-tuning changed in a model as a LoRA, and says how much of it the LoRA leaves "
                        "out. Reads one layer of both models at a time.",
            search_aliases=["lora from checkpoint", "difference", "svd", "extract lora"],
            is_output_node=True,
            inputs=[
                sockets.DiffusersModel.Input("tuned", tooltip="The model with the change, from Open Model."),
                sockets.DiffusersModel.Input("base", tooltip="The model that it was made from, from Open Model."),
                io.Int.Input("rank", default=32, min=1, max=1024,
                             tooltip="At most so many in each layer. More holds more of the change, in a larger file."),
                io.Boolean.Input("text_encoders", default=True, tooltip="Also what changed in the text encoders."),
                *written_inputs("my-extracted-lora"),
            ],
            outputs=lora_outputs("Layers, ranks, and what is left out."),
        )

    @classmethod
    def execute(cls, tuned: Any, base: Any, rank: int, text_encoders: bool, save_dtype: str, name: str
                ) -> io.NodeOutput:
        """Extract, or find the file written by an earlier run with the same inputs."""
        from ..atelier.lora.extract import extract_lora
        from ..atelier.lora.written import WrittenAs

        return written_once(
            name,
            lambda path: extract_lora(tuned.path, base.path, path, rank=rank, text_encoders=text_encoders,
                                      written=WrittenAs(dtype=save_dtype), progress=HostProgress()).text(),
            "extracted", tuned.fingerprint, base.fingerprint, rank, text_encoders, save_dtype)
