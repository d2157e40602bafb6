"""How a run uses its device."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import check_types, require, require_one_of

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """Precision and memory. Of these, only the precision changes the weights and belongs to a run's identity.

    Raises:
        AtelierError: a value is not among the choices or of another type; the message names the field.
    """

    precision: str = "auto"
    """Of the frozen weights and the arithmetic: "auto", "fp32", "bf16", "fp16". Adapters are always kept in float32."""
    gradient_checkpointing: str = "auto"
    """"auto" (only when memory demands it), "on" or "off" (https://arxiv.org/abs/1604.06174)."""
    blocks_to_swap: int = -1
    """Blocks whose frozen weights wait in main memory and are copied to the card for their passes; -1: as many as its
    memory demands. Needs gradient checkpointing."""
    compile: str = "off"
    """"on" compiles the UNet (torch.compile), which takes minutes before the first step; "off"."""
    cuda_graphs: str = "auto"
    """Whether an NVIDIA card is given forward and backward pass as one recording instead of thousands of launches:
    "auto" where that was checked and is faster, "on" where it was checked, "off"."""

    def __post_init__(self) -> None:
        check_types(self)
        require_one_of(self, "precision", PRECISIONS)
        require_one_of(self, "gradient_checkpointing", ("auto", "on", "off"))
        require_one_of(self, "compile", ("on", "off"))
        require_one_of(self, "cuda_graphs", ("auto", "on", "off"))
        require(self.blocks_to_swap >= -1, "blocks_to_swap", self.blocks_to_swap, "Choose -1 or more.")
        require(self.blocks_to_swap <= 0 or self.gradient_checkpointing != "off", "blocks_to_swap", self.blocks_to_swap,
                "Blocks can wait in main memory with gradient checkpointing alone: set it to \"auto\" or \"on\".")
