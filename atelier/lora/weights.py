"""LoRA weights in one neutral format, whatever file they come from or go to.

Equation (Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1): W' = W + (alpha / r) · B · A, here with
`down` for A and `up` for B. DoRA (Liu et al. 2024, https://arxiv.org/abs/2402.09353, equation 5) adds a magnitude m per
output channel: W' = m · (W + s·B·A) / ‖W + s·B·A‖. LyCORIS' default has one per input channel instead, with that norm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import AtelierError


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

    def delta(self) -> Tensor:
        """(alpha / r) · B · A in float32, in the layer's weight shape. Leaves DoRA's magnitude out."""
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return (product * (self.alpha / self.rank)).reshape(self.up.shape[0], *self.down.shape[1:])

    def applied(self, weight: Tensor, strength: float = 1.0) -> Tensor:
        """The layer's weight with this adapter at `strength`, in float32: W + strength · (W' − W)."""
        base = weight.float()
        tuned = base + self.delta().to(base.device).reshape(base.shape)
        if self.magnitude is not None:
            channels = tuned.transpose(0, 1) if self.by_input else tuned
            norm = channels.flatten(1).norm(dim=1)
            ratio = (self.magnitude.float().flatten().to(base.device) / norm).reshape(-1, *[1] * (base.dim() - 1))
            tuned = tuned * (ratio.transpose(0, 1) if self.by_input else ratio)
        return torch.lerp(base, tuned, strength)


LoraWeights = Mapping[str, LoraModule]
"""Adapters by diffusers module path with the component in front: `unet.down_blocks.0.….attn1.to_q`,
`text_encoder.text_model.encoder.layers.0.self_attn.q_proj`, `text_encoder_2.…`."""


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
    if not any(m.alpha or m.magnitude is not None for m in weights.values()):
        raise AtelierError(f"{origin} has alpha 0 in each of its {len(weights)} layers: it would change nothing.",
                           "Train it with an alpha above 0.")
    if not any((m.alpha and m.up.float().any() and m.down.float().any()) or m.magnitude is not None
               for m in weights.values()):
        raise AtelierError(f"{origin} holds only zeros: it would change nothing.",
                           "Train for at least one step; an untouched LoRA is not written.")


def select(weights: LoraWeights, component: str) -> dict[str, LoraModule]:
    """The adapters of one component ("unet", "text_encoder", …), by module path within it."""
    prefix = component + "."
    return {name[len(prefix):]: module for name, module in weights.items() if name.startswith(prefix)}
