"""A smaller LoRA that changes a model as nearly as can be in the same way."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ..errors import AtelierError
from ..progress import Progress
from .weights import Adapter, LoraModule
from .written import AS_KOHYA, WrittenAs, ranks_text, refuse_dora


@dataclass(frozen=True, kw_only=True)
class LoraResize:
    """The result of `resize_lora`."""

    source: Path
    destination: Path
    layers: int
    ranks_before: str
    ranks_after: str
    error: float
    """Norm of what was cut off over the norm of the whole, all layers together: 0 to 1."""
    numbers_before: int
    """In the matrices of all layers."""
    numbers_after: int
    idle: int
    """Layers that changed nothing, and were left out."""
    turned: str
    """Other kinds that became LoRA, and how many layers of each; empty where there were none."""

    def text(self) -> str:
        """The report as lines for a person."""
        lines = [f"{self.source.name} -> {self.destination}",
                 f"{self.layers} layers, rank {self.ranks_before} -> {self.ranks_after}, "
                 f"{self.numbers_after / self.numbers_before:.0%} of the numbers",
                 f"{self.error:.2%} of the change is lost"]
        lines += [f"made LoRA of: {self.turned}"] if self.turned else []
        return "\n".join([*lines, f"{self.idle} layers that change nothing were left out"] if self.idle else lines)


def resize_lora(source: Path, destination: Path, *, rank: int = 0, share: float = 1.0, written: WrittenAs = AS_KOHYA,
                progress: Progress | None = None) -> LoraResize:
    """Write the LoRA at `source` with fewer ranks: in each layer the largest singular values of its change are kept.

    Args:
        source: A LoRA file or PEFT folder.
        destination: The file to write, or for "peft" the folder.
        rank: At most so many in each layer; 0: as many as there are.
        share: Keep in each layer the fewest that hold this share of its squares (1: all that `rank` allows). Each layer
            then has a rank of its own.
        written: Format and type.
        progress: Shown progress, asked to stop.

    Raises:
        AtelierError: a value is out of range, the source is a DoRA or no usable LoRA, or the destination cannot be
            written.
    """
    from .as_lora import as_lora
    from .file import read_lora
    from .low_rank import factors_of

    if rank < 0:
        raise AtelierError(f"rank is {rank}.", "Choose 0 or more.")
    if not 0 < share <= 1:
        raise AtelierError(f"share is {share}.", "Choose a number above 0, up to 1: 0.9 keeps nine tenths.")
    written.check(destination, [source])
    found = read_lora(source)
    refuse_dora(found.weights, source.name, "resized")
    progress = progress or Progress()
    plain = as_lora(found.weights, source.name, 0, progress=progress)
    progress.phase("resizing", len(plain.weights))
    made: dict[str, Adapter] = {**plain.kept}
    whole = lost = 0.0
    for done, (name, module) in enumerate(plain.weights.items(), 1):
        progress.check()
        factors = factors_of(module)
        squares = factors.values.square()
        if squares.sum() > 0:
            kept = min(rank or module.rank, factors.rank_for(share))
            made[name] = factors.module(kept, (module.up.shape[0], *module.down.shape[1:]))
            whole, lost = whole + float(squares.sum()), lost + float(squares[kept:].sum())
        progress.advance(done)
    written.save(destination, made, found.metadata, {"tool": "resize", "source": source.name, "rank": rank,
                                                     "share": share})
    return LoraResize(
        source=source, destination=destination, layers=len(made), ranks_before=ranks_text(plain.weights),
        ranks_after=ranks_text(made), error=math.sqrt(lost / whole) if whole else 0.0,
        numbers_before=sum(map(_numbers, found.weights.values())), numbers_after=sum(map(_numbers, made.values())),
        idle=len(found.weights) - len(made), turned=plain.turned)


def _numbers(module: Adapter) -> int:
    if isinstance(module, LoraModule):
        return module.up.numel() + module.down.numel()
    return sum(tensor.numel() for tensor in module.tensors.values())
