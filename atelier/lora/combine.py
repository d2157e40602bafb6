"""One LoRA that does what several do together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AtelierError
from ..progress import Progress
from .other_adapter import OtherAdapter
from .weights import Adapter, LoraModule
from .written import AS_KOHYA, WrittenAs, ranks_text, refuse_dora

if TYPE_CHECKING:
    from torch import Tensor

_OF_MODEL = ("ss_base_model_version", "ss_v2", "modelspec.architecture", "modelspec.implementation",
             "modelspec.prediction_type", "modelspec.resolution", "ss_sd_model_name", "ss_sd_model_hash",
             "ss_v_parameterization")
"""What a header says of the model: kept where all sources say the same."""


@dataclass(frozen=True, kw_only=True)
class LoraCombination:
    """The result of `combine_loras`."""

    sources: tuple[tuple[Path, float], ...]
    destination: Path
    layers: int
    shared: int
    """Layers that more than one of the sources change."""
    ranks: str
    error: float
    """Norm of what a smaller rank cut off over the norm of the whole; 0 where nothing was."""
    turned: tuple[str, ...] = ()
    """Lines on sources of other kinds that became LoRA."""

    def text(self) -> str:
        """The report as lines for a person."""
        sources = " + ".join(f"{strength:g} × {path.name}" for path, strength in self.sources)
        return "\n".join([f"{sources} -> {self.destination}",
                          f"{self.layers} layers ({self.shared} in more than one), rank {self.ranks}",
                          f"{self.error:.2%} of the change is lost" if self.error else "exact",
                          *self.turned])


def combine_loras(sources: Sequence[tuple[Path, float]], destination: Path, *, rank: int = 0,
                  written: WrittenAs = AS_KOHYA, progress: Progress | None = None) -> LoraCombination:
    """Write a LoRA whose change in each layer is the sum of those of the sources, each times its strength.

    Args:
        sources: LoRA files or PEFT folders, with a strength for each; one below 0 takes a change away.
        destination: The file to write, or for "peft" the folder.
        rank: At most so many in each layer, the rest cut off by its singular values; 0: the sum is exact, and the ranks
            of the sources add up.
        written: Format and type.
        progress: Shown progress, asked to stop.

    Raises:
        AtelierError: fewer than two sources have a strength, one is a DoRA or no usable LoRA, they are for models of
            different families, or the destination cannot be written.
    """
    from .as_lora import as_lora
    from .file import read_lora
    from .low_rank import factors_of

    used = [(path, strength) for path, strength in sources if strength]
    if len(used) < 2 or not all(math.isfinite(strength) for _, strength in used):
        raise AtelierError(f"There are {len(used)} LoRAs with a strength to merge.",
                           "Give two or more, each with a strength other than 0.")
    if rank < 0:
        raise AtelierError(f"rank is {rank}.", "Choose 0 or more.")
    written.check(destination, [path for path, _ in sources])
    found = [(read_lora(path), path, strength) for path, strength in used]
    for lora, path, _ in found:
        refuse_dora(lora.weights, path.name, "merged with others")
    progress = progress or Progress()
    by_layer: dict[str, list[tuple[LoraModule, float]]] = {}
    vectors: dict[str, list[tuple[OtherAdapter, float]]] = {}
    turned = []
    for lora, path, strength in found:
        made_plain = as_lora(lora.weights, path.name, 0, progress=progress)
        turned += [f"{path.name}: {made_plain.text()}"] if made_plain.layers else []
        for name, module in made_plain.weights.items():
            by_layer.setdefault(name, []).append((module, strength))
        for name, module in made_plain.kept.items():
            vectors.setdefault(name, []).append((module, strength))
    _check_shapes({**by_layer, **vectors})
    progress.phase("merging", len(by_layer))
    made: dict[str, Adapter] = {name: _summed(parts) for name, parts in vectors.items()}
    whole = lost = 0.0
    for done, (name, parts) in enumerate(by_layer.items(), 1):
        progress.check()
        summed = _concatenated(parts)
        if rank and summed.rank > rank:
            factors = factors_of(summed)
            squares = factors.values.square()
            whole, lost = whole + float(squares.sum()), lost + float(squares[rank:].sum())
            summed = factors.module(rank, (summed.up.shape[0], *summed.down.shape[1:]))
        elif rank:
            whole += float(factors_of(summed).values.square().sum())
        made[name] = summed
        progress.advance(done)
    told = {"tool": "merge", "rank": rank, "sources": [[path.name, strength] for path, strength in used]}
    written.save(destination, made, _common([lora.metadata for lora, _, _ in found]), told)
    return LoraCombination(sources=tuple(used), destination=destination, layers=len(made),
                           shared=sum(len(parts) > 1 for parts in by_layer.values()), ranks=ranks_text(made),
                           error=math.sqrt(lost / whole) if lost else 0.0,
                           turned=tuple(turned))


def _summed(parts: Sequence[tuple[OtherAdapter, float]]) -> OtherAdapter:
    """Σ strength · difference, of a bias or a norm."""
    first = parts[0][0]
    total = sum((module.delta() * strength for module, strength in parts[1:]), first.delta() * parts[0][1])
    return replace(first, tensors=dict.fromkeys(first.tensors, total))


def _concatenated(parts: Sequence[tuple[LoraModule, float]]) -> LoraModule:
    """Σ strength · (alpha / r) · B · A as one product: the matrices beside each other, the factors in the Bs."""
    import torch

    def like(tensor: Tensor, first: Tensor) -> Tensor:
        # A pointwise convolution and a linear layer have the same numbers.
        return tensor.float().reshape(tensor.shape[0], *first.shape[1:])

    first = parts[0][0]
    down = torch.cat([like(module.down, first.down) for module, _ in parts])
    up = torch.cat([module.up.float().flatten(1) * (strength * module.alpha / module.rank)
                    for module, strength in parts], dim=1)
    return LoraModule(down, up.reshape(*up.shape, *[1] * (first.up.dim() - 2)), float(len(down)))


def _check_shapes(by_layer: Mapping[str, Sequence[tuple[Adapter, float]]]) -> None:
    for name, parts in by_layer.items():
        shapes = {module.shape for module, _ in parts}
        if len(shapes) > 1:
            words = " and ".join(f"{out} × {inner}" for out, inner in sorted(shapes))
            raise AtelierError(f"The LoRAs are for different models: their layers {name} are of sizes {words}.",
                               "Merge LoRAs of one family, such as Stable Diffusion 1 or XL.")


def _common(headers: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {key: headers[0][key] for key in _OF_MODEL
            if key in headers[0] and all(header.get(key) == headers[0][key] for header in headers)}
