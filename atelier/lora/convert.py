"""Bring a LoRA from one program's format to another's: kohya, diffusers, PEFT, in every direction."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AtelierError
from ..files import check_apart
from ..progress import Progress
from .names import COMPONENTS, FORMATS, OTHER_NETWORK

if TYPE_CHECKING:
    import torch

    from .weights import LoraWeights

FAMILY_BY_TEXT_WIDTH = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "Stable Diffusion XL",
                        1280: "Stable Diffusion XL refiner"}
"""What a UNet belongs to, by the width of the text that its cross-attention reads."""

_STALE = ("sshs_", "modelspec.hash_sha256", "lora_adapter_metadata", "format")
"""What no longer holds in another format: hashes over the tensors, and the scale that diffusers' entry states."""


@dataclass(frozen=True, kw_only=True)
class LoraConversion:
    """The result of `convert_lora`."""

    source: Path
    destination: Path
    format: str
    family: str
    """The family's name in words; empty where the layers do not tell."""
    matched: int
    """Tensors of the source that were converted."""
    total: int
    """Tensors of the source."""
    unmatched: tuple[str, ...]
    """Keys of the source that are no part of an adapter known here, and were left out."""
    left_out: str
    """The same as a line for a person, with a few of them; empty where there are none."""
    layers: dict[str, int]
    """Adapted layers of each component."""
    kinds: str
    """How many layers of the source are of which kind, in words."""
    turned: str
    """A line on layers that became LoRA; empty where none did."""
    foreign: int
    """Layers of the result that ComfyUI's own nodes leave out."""
    ranks: tuple[int, ...]
    """Every rank that occurs, rising."""
    scales: tuple[float, ...]
    """Every alpha / rank of LoRA that occurs, rising."""
    dtype: str
    """Type of the written tensors, in torch's words."""

    def text(self) -> str:
        """The report as lines for a person."""
        def either(values: tuple[float, ...]) -> str:
            return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"

        parts = ", ".join(f"{name} {count}" for name, count in self.layers.items())
        lines = [f"{self.source.name} -> {self.destination} ({self.format})",
                 f"{self.matched} of {self.total} keys matched",
                 f"{f'{self.family}, ' if self.family else ''}{sum(self.layers.values())} layers ({parts}), "
                 + "".join(f"{name} {either(values)}, " for name, values in (
                     ("rank", self.ranks), ("alpha / rank", self.scales)) if values) + self.dtype]
        if set(self.kinds.split(", ")) != {f"LoRA {sum(self.layers.values())}"}:
            lines.append(f"kinds: {self.kinds}")
        if self.foreign:
            lines.append(f"{self.foreign} layers are IA3 or OFTv2, which Apply LoRA and Export Checkpoint use and "
                         "ComfyUI's own Load LoRA leaves out")
        return "\n".join([*lines, *filter(None, (self.turned, self.left_out))])


def convert_lora(source: Path, destination: Path, format: str = "kohya", *, rank: int | None = None,
                 progress: Progress | None = None) -> LoraConversion:
    """Write the LoRA at `source` in another format. The layers' deltas stay what they were.

    kohya's format holds every kind (LoHa, LoKr, …). The others hold LoRA alone, and are given the nearest LoRA of a
    rank; the report says how near that is.

    Read are kohya's files (layers named as by diffusers or as in checkpoints), diffusers', ComfyUI's and PEFT folders.
    Tensors keep the type they are stored in; only where diffusers' format has alpha / rank folded into B, and that is
    no power of two, they become float32, because the product would be rounded.

    Args:
        source: A `.safetensors` file, a pickle that holds tensors alone (`.pt`, `.bin`), or a PEFT folder.
        destination: A `.safetensors` file; for "peft" a folder (see `atelier.lora.file.save_lora`).
        format: "kohya", "diffusers" or "peft".
        rank: The most of a layer that is turned into a LoRA; 0: as many as its change has; None: `as_lora.RANK`.
        progress: Shown progress, asked to stop.

    Raises:
        AtelierError: no key of the source is known, its values are all zero or not finite, it holds layers that the
            format cannot, or the destination cannot be written.
    """
    from .as_lora import RANK, as_lora
    from .file import read_lora, save_lora
    from .other_adapter import IA3, OFT_INPUT
    from .weights import kinds_text, others, plain

    source, destination = Path(source), Path(destination)
    if format not in FORMATS:
        raise AtelierError(f"LoRA format {format!r} is not known.", f"Choose one of: {', '.join(FORMATS)}.")
    if format != "peft" and destination.suffix.lower() != ".safetensors":
        raise AtelierError(f"{destination} does not end in .safetensors.",
                           f"A LoRA in {format} format is one file; give it that ending.")
    check_apart(destination, _read_files(source) if format != "peft" else [source])
    found = read_lora(source)
    weights, turned = found.weights, ""
    if format != "kohya" and others(weights):
        made = as_lora(weights, source.name, RANK if rank is None else rank, biases=False, progress=progress)
        weights, turned = made.weights, made.text()
    dtype = _dtype(weights, format)
    kept = {key: value for key, value in found.metadata.items() if not key.startswith(_STALE)}
    save_lora(destination, weights, format=format, metadata=kept, dtype=dtype)
    counts = Counter(name.split(".", 1)[0] for name in weights)
    return LoraConversion(
        source=source, destination=destination, format=format, family=_family(weights), matched=found.matched,
        total=found.keys, unmatched=found.unmatched, left_out=found.left_out(),
        layers={name: counts[name] for name in (*COMPONENTS, OTHER_NETWORK) if name in counts},
        kinds=kinds_text(found.weights), turned=turned,
        foreign=sum(module.kind in (IA3, OFT_INPUT) for module in others(weights).values()),
        ranks=tuple(sorted({module.rank for module in weights.values() if module.rank})),
        scales=tuple(sorted({module.alpha / module.rank for module in plain(weights).values()})),
        dtype=str(dtype).removeprefix("torch."))


def _read_files(source: Path) -> list[Path]:
    """The files of a LoRA. Beside those of a PEFT folder another may be written."""
    return [file for file in source.rglob("*") if file.is_file()] if source.is_dir() else [source]


def _dtype(weights: LoraWeights, format: str) -> torch.dtype:
    import torch

    from .weights import others, plain

    modules = plain(weights).values()
    folds = format == "diffusers" and any(math.frexp(module.alpha / module.rank)[0] != 0.5 for module in modules)
    dtypes = {tensor.dtype for module in modules for tensor in (module.down, module.up)}
    dtypes |= {tensor.dtype for module in others(weights).values() for tensor in module.tensors.values()
               if tensor.is_floating_point()}
    return dtypes.pop() if len(dtypes) == 1 and not folds else torch.float32


def _family(weights: LoraWeights) -> str:
    for name, module in weights.items():
        if name.endswith("attn2.to_k"):
            return FAMILY_BY_TEXT_WIDTH.get(module.shape[1] or 0, "")
    return ""
