"""Merge LoRAs: one LoRA that does what two do together."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host import folders
from .host.progress import HostProgress
from .lora_files import lora_input, lora_outputs, lora_path, written_inputs, written_once


class MergeLoras(io.ComfyNode):
    """Writes one LoRA whose change is the sum of those of two, each times its strength."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierMergeLoras",
            display_name="Merge LoRAs",
            category="Atelier/lora",
            description="Writes one LoRA that does what two do together, exactly or cut to a rank. For a third, merge "
                        "the result once more.",
            search_aliases=["combine loras", "lora merge", "add loras"],
            is_output_node=True,
            inputs=[
                lora_input("first"),
                io.Float.Input("first_strength", default=1.0, min=-10.0, max=10.0, step=0.05,
                               tooltip="As it would be loaded with. Below 0 its change is taken away."),
                lora_input("second"),
                io.Float.Input("second_strength", default=1.0, min=-10.0, max=10.0, step=0.05,
                               tooltip="As it would be loaded with. Below 0 its change is taken away."),
                io.Int.Input("rank", default=0, min=0, max=1024,
                             tooltip="At most so many in each layer. 0: exact, the ranks of both add up."),
                *written_inputs("my-loras"),
            ],
            outputs=lora_outputs("Layers, ranks, and what is lost."),
        )

    @classmethod
    def fingerprint_inputs(cls, first: str | None = None, second: str | None = None, **_: Any) -> str:
        """Change when a file does."""
        return " ".join(folders.disk_state(lora_path(name)) for name in (first, second) if name)

    @classmethod
    def execute(cls, first: str, first_strength: float, second: str, second_strength: float, rank: int,
                save_dtype: str, name: str) -> io.NodeOutput:
        """Merge, or find the file written by an earlier run with the same inputs."""
        from ..atelier.lora.combine import combine_loras
        from ..atelier.lora.written import WrittenAs

        sources = [(lora_path(first), first_strength), (lora_path(second), second_strength)]
        return written_once(
            name,
            lambda path: combine_loras(sources, path, rank=rank, written=WrittenAs(dtype=save_dtype),
                                       progress=HostProgress()).text(),
            "merged", sources, [folders.disk_state(path) for path, _ in sources], rank, save_dtype)
