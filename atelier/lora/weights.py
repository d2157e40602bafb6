"""LoRA weights in one neutral format, whatever file they come from or go to.

Equation (Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1): W' = W + (alpha / r) · B · A, here with
`down` for A and `up` for B, maybe with DoRA's magnitude (`dora`). Adapters of other kinds are `OtherAdapter`s.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import AtelierError
from .dora import with_magnitude
from .other_adapter import MAGNITUDE, OtherAdapter


@dataclass(frozen=True)
class LoraModule:
    """The adapter of one linear or convolution layer."""

    down: Tensor
    """A: [r, in] for a linear layer, [r, in, k, k] for a convolution."""
    up: Tensor
    """B: [out, r], or [out, r, 1, 1]."""
    alpha: float
    """Strength numerator: the delta is scaled by alpha / r."""
    magnitude: Tensor | None = None
    """DoRA's m, [out] or [in]; None for plain LoRA."""
    by_input: bool = False
    """Whether m belongs to the input channels."""

    @property
    def rank(self) -> int:
        """r, the inner width."""
        return self.down.shape[0]

    @property
    def finite(self) -> bool:
        """True when no number in it is NaN or infinite."""
        tensors = (self.down, self.up) if self.magnitude is None else (self.down, self.up, self.magnitude)
        # By way of float32: torch cannot ask this of eight-bit numbers.
        return math.isfinite(self.alpha) and all(bool(tensor.float().isfinite().all()) for tensor in tensors)

    @property
    def idle(self) -> bool:
        """True when it changes nothing."""
        return self.magnitude is None and not (self.alpha and self.up.float().any() and self.down.float().any())

    @property
    def shape(self) -> tuple[int, int]:
        """(output channels, numbers of each) of the layer's weight."""
        return self.up.shape[0], self.down[0].numel()

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it belongs to a weight of this shape."""
        return self.shape == (shape[0], torch.Size(shape)[1:].numel())

    def delta(self) -> Tensor:
        """(alpha / r) · B · A in float32, in the layer's weight shape. Leaves DoRA's magnitude out."""
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return (product * (self.alpha / self.rank)).reshape(self.up.shape[0], *self.down.shape[1:])

    def applied(self, weight: Tensor, strength: float = 1.0) -> Tensor:
        """The layer's weight with this adapter at `strength`, in float32: W + strength · (W' − W)."""
        base = weight.float()
        tuned = base + self.delta().to(base.device).reshape(base.shape)
        if self.magnitude is not None:
            tuned = with_magnitude(tuned, self.magnitude, by_input=self.by_input)
        return torch.lerp(base, tuned, strength)


Adapter = LoraModule | OtherAdapter
"""What changes one layer."""

PlainWeights = Mapping[str, LoraModule]
"""LoRA and DoRA alone, by the names of `LoraWeights`."""

LoraWeights = Mapping[str, Adapter]
"""Adapters by diffusers module path with the component in front: `unet.down_blocks.0.….attn1.to_q`,
`text_encoder.text_model.encoder.layers.0.self_attn.q_proj`, `text_encoder_2.…`. One that ends in `.bias` changes the
bias of that layer."""


def check_usable(weights: LoraWeights, origin: str) -> None:
    """Refuse weights that would load "successfully" and do nothing or do harm.

    Args:
        weights: What is about to be written, or was just read.
        origin: Where they come from, for the message.

    Raises:
        AtelierError: no adapters, a NaN or infinity, or every delta zero.
    """
    if not weights:
        raise AtelierError(f"{origin} holds no LoRA tensors at all.",
                           "Nothing was written; train again or choose another file.")
    broken = [name for name, m in weights.items() if not m.finite]
    if broken:
        raise AtelierError(f"{origin} holds NaN or infinite values in {len(broken)} of {len(weights)} adapters "
                           f"(first: {broken[0]}).",
                           "Lower the learning rate or use another precision and train again.")
    if all(isinstance(m, LoraModule) and not m.alpha and m.magnitude is None for m in weights.values()):
        raise AtelierError(f"{origin} has alpha 0 in each of its {len(weights)} layers: it would change nothing.",
                           "Train it with an alpha above 0.")
    if all(m.idle for m in weights.values()):
        raise AtelierError(f"{origin} holds only zeros: it would change nothing.",
                           "Train for at least one step; an untouched LoRA is not written.")


def plain(weights: LoraWeights) -> PlainWeights:
    """Those that are LoRA or DoRA."""
    return {name: module for name, module in weights.items() if isinstance(module, LoraModule)}


def others(weights: LoraWeights) -> Mapping[str, OtherAdapter]:
    """Those of other kinds."""
    return {name: module for name, module in weights.items() if isinstance(module, OtherAdapter)}


def kinds_text(weights: LoraWeights) -> str:
    """How many layers are of which kind, in words: "LoRA 96, LoKr 32"."""
    counts = Counter((module.kind if isinstance(module, OtherAdapter) else "LoRA" if module.magnitude is None else
                      "DoRA") + (" with DoRA" if isinstance(module, OtherAdapter) and MAGNITUDE in module.tensors else
                                 "") for module in weights.values())
    return ", ".join(f"{kind} {count}" for kind, count in counts.items())


def select(weights: LoraWeights, component: str) -> dict[str, Adapter]:
    """The adapters of one component ("unet", "text_encoder", …), by module path within it."""
    prefix = component + "."
    return {name[len(prefix):]: module for name, module in weights.items() if name.startswith(prefix)}
