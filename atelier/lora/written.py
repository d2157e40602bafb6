"""How tools write the LoRA that they made: format, type, and a header that says where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import AtelierError
from ..files import check_apart
from .dtypes import torch_dtype
from .file import save_lora
from .names import FORMATS
from .weights import LoraWeights, plain

MADE_BY = "atelier.made_by"
"""The key of a header under which a tool says what it did, as JSON."""

_OF_TENSORS = ("sshs_", "modelspec.hash_sha256", "lora_adapter_metadata", "format", "atelier.stored_as")
"""What no longer holds of other tensors."""


@dataclass(frozen=True)
class WrittenAs:
    """How a LoRA is written.

    Raises:
        AtelierError: there is no such format or type.
    """

    format: str = "kohya"
    """"kohya", "diffusers" or "peft"."""
    dtype: str = "fp32"
    """"fp32", "fp16" or "bf16"."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise AtelierError(f"LoRA format {self.format!r} is not known.", f"Choose one of: {', '.join(FORMATS)}.")
        torch_dtype(self.dtype)

    def check(self, destination: Path, read: list[Path]) -> None:
        """Refuse a destination before the work begins.

        Raises:
            AtelierError: it lacks the ending of a file, or is one of the files that are read.
        """
        if self.format != "peft" and destination.suffix.lower() != ".safetensors":
            raise AtelierError(f"{destination} does not end in .safetensors.",
                               f"A LoRA in {self.format} format is one file; give it that ending.")
        check_apart(destination, read)

    def save(self, destination: Path, weights: LoraWeights, metadata: Mapping[str, str], made_by: Mapping[str, object]
             ) -> None:
        """Write `weights`, with what still holds of `metadata` and how they were made.

        Args:
            destination: The file, or for "peft" the folder.
            weights: What to write.
            metadata: The header of what they were made from.
            made_by: Tool, sources and settings, as JSON values.
        """
        ranks, alphas = ({f(module) for module in plain(weights).values()}
                         for f in (lambda m: m.rank, lambda m: m.alpha))
        header = {key: value for key, value in metadata.items() if not key.startswith(_OF_TENSORS)}
        # "Dynamic" is sd-scripts' word for ranks that differ.
        header |= {"ss_network_dim": str(*ranks) if len(ranks) == 1 else "Dynamic",
                   "ss_network_alpha": f"{next(iter(alphas)):g}" if len(alphas) == 1 else "Dynamic",
                   MADE_BY: json.dumps(made_by, sort_keys=True)}
        save_lora(destination, weights, format=self.format, metadata=header, dtype=torch_dtype(self.dtype))


AS_KOHYA = WrittenAs()
"""What every program that knows LoRA files reads."""


def ranks_text(weights: LoraWeights) -> str:
    """The ranks of all layers in words: "8", or "1 to 16"."""
    ranks = sorted({module.rank for module in weights.values() if module.rank is not None})
    if not ranks:
        return "none"
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"


def refuse_dora(weights: LoraWeights, name: str, what: str) -> None:
    """Refuse a DoRA: its layers depend on the weights of the model it is used with.

    Raises:
        AtelierError: it holds one.
    """
    if any(module.magnitude is not None for module in plain(weights).values()):
        raise AtelierError(f"{name} is a DoRA, whose change depends on the model's own weights; it cannot be {what}.",
                           "Merge it into a checkpoint with Export Checkpoint, and extract a LoRA from that.")
