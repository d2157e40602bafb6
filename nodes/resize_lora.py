"""Resize LoRA: a LoRA with a smaller rank."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host import folders
from .host.progress import HostProgress
from .lora_files import lora_input, lora_outputs, lora_path, written_inputs, written_once
from .validation import check
from .widgets import arrow_step


class ResizeLora(io.ComfyNode):
    """Writes a LoRA with a smaller rank, which changes a model as nearly as can be in the same way."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierResizeLora",
            display_name="Resize LoRA",
            category="Atelier/lora",
            description="Writes a LoRA with a smaller rank, and so a smaller file, and says how much of its change is "
                        "lost.",
            search_aliases=["lora rank", "shrink lora", "reduce lora", "svd"],
            is_output_node=True,
            inputs=[
                lora_input("lora"),
                io.Int.Input("rank", default=16, min=0, max=1024,
                             tooltip="At most so many in each layer. 0: no limit, share decides."),
                io.Float.Input("share", default=1.0, min=0.01, max=1.0, step=0.001, extra_dict=arrow_step(0.01),
                               tooltip="Keep in each layer the fewest ranks that hold this share of its squares: 0.95 "
                                       "for example. 1: as many as rank allows."),
                *written_inputs("my-lora-small"),
            ],
            outputs=lora_outputs("Ranks before and after, and what is lost."),
        )

    @classmethod
    def validate_inputs(cls, lora: str | None = None) -> bool | str:
        """Report before the run that the LoRA is missing."""
        return check(lora_path, lora)

    @classmethod
    def fingerprint_inputs(cls, lora: str | None = None, **_: Any) -> str:
        """Change when the file does."""
        return folders.disk_state(lora_path(lora)) if lora else ""

    @classmethod
    def execute(cls, lora: str, rank: int, share: float, save_dtype: str, name: str) -> io.NodeOutput:
        """Resize, or find the file written by an earlier run with the same inputs."""
        from ..atelier.lora.resize import resize_lora
        from ..atelier.lora.written import WrittenAs

        source = lora_path(lora)
        return written_once(
            name,
            lambda path: resize_lora(source, path, rank=rank, share=share, written=WrittenAs(dtype=save_dtype),
                                     progress=HostProgress()).text(),
            "resized", source, folders.disk_state(source), rank, share, save_dtype)
