"""The LoRA that is nearest to what fine-tuning changed in a model.

Tensors are read one pair at a time, so that two checkpoints of any size need the memory of one layer of each, and that
of the LoRA.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AtelierError
from ..progress import Progress
from .names import COMPONENTS, known_layer
from .written import AS_KOHYA, WrittenAs, ranks_text

if TYPE_CHECKING:
    from ..models.layout import ModelLayout
    from ..models.lazy_tensor import LazyTensor
    from .weights import LoraModule


@dataclass(frozen=True, kw_only=True)
class LoraExtraction:
    """The result of `extract_lora`."""

    tuned: Path
    base: Path
    destination: Path
    layers: dict[str, int]
    """Layers of each component that the LoRA changes."""
    unchanged: int
    """Layers that are the same in both models."""
    ranks: str
    error: float
    """Norm of what the LoRA leaves out of the changes of its layers over the norm of these: 0 to 1."""
    other: int
    """Tensors that differ and that no LoRA holds: norms, biases and embeddings."""

    def text(self) -> str:
        """The report as lines for a person."""
        parts = ", ".join(f"{name} {count}" for name, count in self.layers.items())
        lines = [f"{self.tuned.name} - {self.base.name} -> {self.destination}",
                 f"{sum(self.layers.values())} layers ({parts}), {self.unchanged} unchanged, rank {self.ranks}",
                 f"{self.error:.2%} of the change of these layers is left out"]
        return "\n".join([*lines, f"{self.other} other tensors differ (norms, biases, embeddings), which a LoRA "
                                  "cannot hold"] if self.other else lines)


def extract_lora(tuned: Path, base: Path, destination: Path, *, rank: int = 32, share: float = 1.0,
                 text_encoders: bool = True, written: WrittenAs = AS_KOHYA, progress: Progress | None = None
                 ) -> LoraExtraction:
    """Write a LoRA that turns `base` into `tuned` as nearly as its rank allows.

    Args:
        tuned: A checkpoint or diffusers folder.
        base: The model that it was made from, in either form.
        destination: The file to write, or for "peft" the folder.
        rank: At most so many in each layer.
        share: Of a layer's change, keep the fewest ranks that hold this share of its squares (1: all up to `rank`).
        text_encoders: Whether their layers count too.
        written: Format and type.
        progress: Shown progress, asked to stop.

    Raises:
        AtelierError: a value is out of range, the models are of different families or do not differ, or the
            destination cannot be written.
    """
    import torch

    from ..models.layout import read_layout
    from .low_rank import largest_factors

    if rank < 1:
        raise AtelierError(f"rank is {rank}.", "Choose 1 or more; 32 to 128 is usual.")
    if not 0 < share <= 1:
        raise AtelierError(f"share is {share}.", "Choose a number above 0, up to 1: 0.9 keeps nine tenths.")
    written.check(destination, [tuned, base])
    layouts = read_layout(tuned), read_layout(base)
    if layouts[0].family != layouts[1].family:
        raise AtelierError(f"{tuned.name} is {layouts[0].family.name} and {base.name} is {layouts[1].family.name}.",
                           "Choose the model that the tuned one was made from.")
    pairs = list(_pairs(*layouts, text_encoders))
    progress = progress or Progress()
    progress.phase("extracting", len(pairs))
    made: dict[str, LoraModule] = {}
    whole = lost = 0.0
    unchanged = other = 0
    for done, (name, is_layer, mine, theirs) in enumerate(pairs, 1):
        progress.check()
        if mine.shape != theirs.shape:
            raise AtelierError(f"{tuned.name} and {base.name} are built differently: {name} is {list(mine.shape)} in "
                               f"one and {list(theirs.shape)} in the other.",
                               "Choose the model that the tuned one was made from.")
        # In float64 equal numbers cancel whatever their types, and small differences stay.
        change = mine.read().double() - theirs.read().double()
        if not bool(torch.isfinite(change).all()):
            raise AtelierError(f"{name} holds NaN or infinite values in one of the models.",
                               "Download or convert that model again.")
        if not bool(change.any()):
            unchanged += is_layer
        elif not is_layer:
            other += 1
        else:
            matrix = change.flatten(1)
            factors = largest_factors(matrix, rank)
            total = float(matrix.square().sum())
            kept = _enough(factors.values.square().cumsum(0).tolist(), share * total)
            made[name] = factors.module(kept, tuple(change.shape))
            whole += total
            lost += max(0.0, total - float(factors.values[:kept].square().sum()))
        progress.advance(done)
    if not made:
        raise AtelierError(f"No layer that a LoRA holds differs between {tuned.name} and {base.name}.",
                           "Choose the tuned model first, and then the one that it was made from.")
    written.save(destination, made, _header(layouts[1]),
                 {"tool": "extract", "tuned": tuned.name, "base": base.name, "rank": rank, "share": share})
    counts = {part: sum(name.startswith(f"{part}.") for name in made) for part in COMPONENTS}
    return LoraExtraction(tuned=tuned, base=base, destination=destination,
                          layers={part: count for part, count in counts.items() if count}, unchanged=unchanged,
                          ranks=ranks_text(made), error=math.sqrt(lost / whole), other=other)


def _pairs(tuned: ModelLayout, base: ModelLayout, text_encoders: bool
           ) -> Iterator[tuple[str, bool, LazyTensor, LazyTensor]]:
    """Tensors of both models: the layer's name in a LoRA, or the tensor's own; whether a LoRA holds it."""
    for folder in COMPONENTS if text_encoders else COMPONENTS[:1]:
        mine, theirs = (layout.components.get(folder) for layout in (tuned, base))
        if mine is None or theirs is None:
            continue  # a file without text encoders, or a family with one
        for name, tensor in mine.tensors.items():
            layer = known_layer(folder, name.removesuffix(".weight")) if name.endswith(".weight") else None
            if name in theirs.tensors:
                yield layer or f"{folder}.{name}", layer is not None, tensor, theirs.tensors[name]


def _enough(sums: list[float], wanted: float) -> int:
    """How many of rising sums are needed for one that reaches `wanted`; all where none does."""
    return next((count for count, reached in enumerate(sums, 1) if reached >= wanted * (1 - 1e-12)), len(sums))


def _header(layout: ModelLayout) -> dict[str, str]:
    family = layout.family
    return {"ss_sd_model_name": layout.path.name, "ss_v2": str(family.key == "sd2"),
            "modelspec.architecture": f"{family.modelspec}/lora", "modelspec.implementation": "diffusers"}
