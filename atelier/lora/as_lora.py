"""LoRAs in the place of adapters of other kinds: the nearest of a rank, by singular values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import AtelierError
from ..progress import Progress
from .low_rank import largest_factors
from .other_adapter import OtherAdapter
from .weights import Adapter, LoraModule, LoraWeights, PlainWeights, kinds_text

RANK = 64
"""Where none is asked for. LoKr's changes are often of a higher one, and most of what they do is in few directions."""

_LEAST = 1e-6
"""Singular values below this share of the largest are float32's rounding."""

_SQUARE = ("conv1", "conv2", "conv_in", "conv_out", "samplers.0.conv")
_POINTWISE = ("conv_shortcut",)
_PROJECTIONS = ("proj_in", "proj_out")
_SD1_TEXT_WIDTH = 768


@dataclass(frozen=True, kw_only=True)
class AsLora:
    """What `as_lora` made."""

    weights: PlainWeights
    """LoRA and DoRA as they were, and LoRAs of the others."""
    kept: Mapping[str, OtherAdapter]
    """Changes of biases and norms, which have no matrix that a LoRA could be of."""
    turned: str
    """Which kinds became LoRA, in words ("LoKr 32"); empty where none did."""
    layers: int
    """How many did."""
    rank: int
    """The most of a layer among these."""
    error: float
    """Norm of what is lost over the norm of the change of these layers: 0 to 1."""

    def text(self) -> str:
        """A line for a person; empty where nothing was turned."""
        return (f"{self.layers} layers ({self.turned}) became LoRA of rank {self.rank} at most: {self.error:.2%} of "
                "their change is lost") if self.layers else ""


def as_lora(weights: LoraWeights, origin: str, rank: int, *, biases: bool = True, progress: Progress | None) -> AsLora:
    """Turn every adapter into LoRA.

    Args:
        weights: Of any kinds.
        origin: Where they come from, for messages.
        rank: The most of a layer that is turned; 0: as many as its change has.
        biases: Whether changes of biases and norms may be kept as they are.
        progress: Shown progress, asked to stop.

    Raises:
        AtelierError: there are kinds whose change depends on the weights that they are used with, or biases that may
            not be kept. Nothing is left out silently.
    """
    foreign = {name: module for name, module in weights.items() if isinstance(module, OtherAdapter)}
    if bound := {name: module for name, module in foreign.items() if module.by_weights}:
        raise AtelierError(f"{origin}: {len(bound)} of its {len(weights)} layers are of kinds ({kinds_text(bound)}) "
                           "whose change depends on the model's own weights; no LoRA does the same for every model.",
                           "Merge it into a checkpoint with Export Checkpoint, and extract a LoRA from that.")
    kept = {name: module for name, module in foreign.items() if is_vector(name, module)}
    if kept and not biases:
        raise AtelierError(f"{origin}: {len(kept)} of its {len(weights)} layers are changes of biases and norms, which "
                           "this format has no place for.", "Keep it in kohya's format.")
    matrices = {name: module for name, module in foreign.items() if name not in kept}
    sd1 = any(name.endswith("attn2.to_k") and module.shape[1] == _SD1_TEXT_WIDTH for name, module in weights.items())
    progress = progress or Progress()
    if matrices:
        progress.phase("converting", len(matrices))
    made: dict[str, LoraModule] = {}
    whole = lost = 0.0
    for name, module in weights.items():
        if isinstance(module, LoraModule):
            made[name] = module
        elif name in matrices:
            progress.check()
            made[name], total, missing = _nearest(name, module, rank, sd1)
            whole, lost = whole + total, lost + missing
            progress.advance(sum(other in made for other in matrices))
    return AsLora(weights=made, kept=kept, turned=kinds_text(matrices), layers=len(matrices),
                  rank=max((made[name].rank for name in matrices), default=0),
                  error=math.sqrt(lost / whole) if lost else 0.0)


def is_vector(name: str, module: Adapter) -> bool:
    """Whether an adapter changes a bias or a norm."""
    return name.endswith(".bias") or (isinstance(module, OtherAdapter) and not module.by_weights
                                      and module.shape[1] == 1)


def _nearest(name: str, module: OtherAdapter, rank: int, sd1: bool) -> tuple[LoraModule, float, float]:
    """The LoRA, and the squares of the whole change and of what is lost."""
    change = module.delta().double()
    matrix = change.flatten(1)
    total = float(matrix.square().sum())
    shape = _layer_shape(name, tuple(change.shape), sd1)
    factors = largest_factors(matrix, rank or min(matrix.shape))
    count = max(1, int((factors.values > _LEAST * factors.values[0]).sum()))
    kept = min(count, rank or count)
    return factors.module(kept, shape), total, max(0.0, total - float(factors.values[:kept].square().sum()))


def _layer_shape(name: str, shape: tuple[int, ...], sd1: bool) -> tuple[int, ...]:
    """The shape of the layer's weight, where the adapter's own lacks a convolution's last axes."""
    if len(shape) != 2:
        return shape
    out, inner = shape
    if name.endswith(_SQUARE) and not inner % 9:
        return out, inner // 9, 3, 3
    if name.endswith(_POINTWISE) or (sd1 and name.startswith("unet.") and name.endswith(_PROJECTIONS)):
        return out, inner, 1, 1
    return shape
