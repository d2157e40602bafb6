"""Adapters of one layer that are no product of two matrices: LyCORIS' kinds, and whole differences.

Names and formulas are LyCORIS' (Yeh et al. 2023, https://arxiv.org/abs/2309.14859), which ComfyUI reads too:

LoHa   ΔW = (alpha / r) · (A₁ · B₁) ⊙ (A₂ · B₂)          (https://arxiv.org/abs/2108.06098)
LoKr   ΔW = (alpha / r) · W₁ ⊗ W₂; either may be a product of two matrices of rank r; of two whole ones, W₁ ⊗ W₂
OFT    W' = R · W, R made of rotations of blocks of output channels     (https://arxiv.org/abs/2306.07280)
BOFT   the same by several layers of blocks, whose channels are farther apart in each (https://arxiv.org/abs/2311.06243)
OFTv2  W' = W · Rᵀ, R of blocks of inputs: see `input_rotation`       (https://arxiv.org/abs/2506.19847)
GLoRA  W' = W + (alpha / r) · (W · A₁ · A₂ + B₁ · B₂)    (https://arxiv.org/abs/2306.07967)
IA3    W' = W scaled by 1 + w, by input or output channels              (https://arxiv.org/abs/2205.05638)

LoHa and LoKr may have a core (Tucker): of a convolution, the product of a matrix for each side with a small kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .dora import with_magnitude
from .input_rotation import SCALED, VECTORS, size_of, turned_inputs

MAGNITUDE = "dora_scale"

LOHA, LOKR, OFT, BOFT, GLORA, IA3 = "LoHa", "LoKr", "OFT", "BOFT", "GLoRA", "IA3"
OFT_INPUT = "OFTv2"
DIFFERENCE, REPLACED = "whole difference", "whole weight"

DIFFERENCES = ("diff", "diff_b", "w_norm", "b_norm")
"""Of a weight, a bias, and those of a norm."""

_BY_WEIGHTS = (OFT, BOFT, OFT_INPUT, GLORA, IA3, REPLACED)
_TERMS = {
    LOHA: (("hada_w1_a", "hada_w1_b", "hada_t1", "hada_w2_a", "hada_w2_b", "hada_t2"),),
    LOKR: (("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),),
    OFT: (("oft_blocks",), ("rescale",)), BOFT: (("oft_blocks",), ("rescale",)),
    OFT_INPUT: ((VECTORS,),),
    GLORA: (("a1.weight", "a2.weight"), ("b1.weight", "b2.weight")), IA3: (("weight",),), DIFFERENCE: (DIFFERENCES,),
    REPLACED: (("set_weight",),)}
"""The summands of each kind: of one that holds a tensor of zeros nothing is left."""


@dataclass(frozen=True)
class OtherAdapter:
    """An adapter by its tensors."""

    kind: str
    """One of this module's."""
    tensors: Mapping[str, Tensor]
    """By what follows the layer's name in LyCORIS' files: "hada_w1_a", "lokr_w1", "diff"; with `dora_scale`, if any."""
    alpha: float | None = None
    """Strength numerator; None where the file holds none. Of OFT and BOFT: how far they may turn, 0 for any angle."""

    @property
    def rank(self) -> int | None:
        """r, the inner width; None for kinds that have none."""
        if self.kind == LOHA:
            return self.tensors["hada_w1_b"].shape[0]
        if self.kind == LOKR:
            inner = next((self.tensors[name] for name in ("lokr_w2_b", "lokr_w1_b") if name in self.tensors), None)
            return None if inner is None else inner.shape[0]
        return None

    @property
    def finite(self) -> bool:
        """True when no number in it is NaN or infinite."""
        return all(bool(tensor.float().isfinite().all()) for tensor in self.tensors.values())

    @property
    def idle(self) -> bool:
        """True when it changes nothing."""
        if MAGNITUDE in self.tensors or self.kind == REPLACED:
            return False
        return all(any(not tensor.float().any() for tensor in present) for names in _TERMS[self.kind]
                   if (present := [self.tensors[name] for name in names if name in self.tensors]))

    @property
    def by_weights(self) -> bool:
        """Whether what it changes depends on the weights that it is used with."""
        return self.kind in _BY_WEIGHTS or MAGNITUDE in self.tensors

    @property
    def shape(self) -> tuple[int | None, int | None]:
        """(output channels, numbers of each) of the layer's weight; None where the tensors do not tell."""
        parts = self.tensors
        if self.kind in (OFT, BOFT):
            return int(parts["oft_blocks"].shape[-3] * parts["oft_blocks"].shape[-2]), None
        if self.kind == OFT_INPUT:
            count, size = len(parts[VECTORS]), size_of(parts[VECTORS])
            return None, count * size if count > 1 else None
        if self.kind == IA3:
            length = parts["weight"].numel()
            return (None, length) if bool(parts["on_input"]) else (length, None)
        if self.kind == GLORA:
            old = self._old_glora(parts["b2.weight"].shape[0], parts["b1.weight"][0].numel())
            left, right = (parts["b2.weight"], parts["b1.weight"]) if old else (parts["b1.weight"], parts["b2.weight"])
            return left.shape[0], right[0].numel()
        whole = (parts["set_weight"].shape if self.kind == REPLACED else
                 OtherAdapter(self.kind, {name: part.to("meta") for name, part in parts.items()}).delta().shape)
        return whole[0], whole[1:].numel()

    def problem(self) -> str:
        """Why its tensors do not fit together; empty where they do."""
        try:
            out, inner = self.shape
            magnitude = self.tensors.get(MAGNITUDE)
            if magnitude is not None and magnitude.numel() not in (out, inner) and (
                    inner is None or magnitude.dim() < 2 or inner % magnitude.numel()):
                return f"{MAGNITUDE} holds {magnitude.numel()} numbers"
            if self.kind in _BY_WEIGHTS and self.kind != REPLACED:
                wide = inner or (size_of(self.tensors[VECTORS]) if self.kind == OFT_INPUT else 1)
                base = [out or 1, wide]
                if self.kind == GLORA:
                    old = self._old_glora(*base)
                    base = [base[0], len(self.tensors["a2.weight" if old else "a1.weight"]), -1]
                plain = {name: part if name in ("on_input", SCALED) else part.to("meta")
                         for name, part in self.tensors.items() if name != MAGNITUDE}
                OtherAdapter(self.kind, plain).applied(torch.empty([out or 1, wide], device="meta").reshape(base))
        except (RuntimeError, ValueError, IndexError, KeyError) as error:
            return str(error).splitlines()[0]
        return ""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it belongs to a weight (or bias) of this shape."""
        out, inner = self.shape
        given = torch.Size(shape)[1:].numel()
        if self.kind == OFT_INPUT and given % size_of(self.tensors[VECTORS]):
            return False
        if self.kind == IA3 and inner is not None:
            given = shape[1]
        return (out is None or out == shape[0]) and (inner is None or inner == given)

    def without_core(self) -> OtherAdapter:
        """A LoKr with a core as one of two whole matrices, which does the same: ComfyUI fails on the core."""
        if self.kind != LOKR or "lokr_t2" not in self.tensors:
            return self
        parts = {name: part.float() for name, part in self.tensors.items()}
        kept = {name: self.tensors[name] for name in self.tensors if not name.startswith("lokr_")}
        right = self._scale() * _product(parts, "lokr_w2", "lokr_t2")
        dtype = self.tensors["lokr_t2"].dtype
        return OtherAdapter(LOKR, {**kept, "lokr_w1": _product(parts, "lokr_w1", "").to(dtype),
                                   "lokr_w2": right.contiguous().to(dtype)}, self.alpha)

    def delta(self) -> Tensor:
        """W' − W in float32, in a shape that may lack a convolution's last axes. For kinds that are not
        `by_weights`, or without their magnitude."""
        parts = {name: part.float() for name, part in self.tensors.items()}
        if self.kind == LOHA:
            return self._scale() * (_product(parts, "hada_w1", "hada_t1") * _product(parts, "hada_w2", "hada_t2"))
        if self.kind == LOKR:
            right = _product(parts, "lokr_w2", "lokr_t2")
            left = _product(parts, "lokr_w1", "")
            return self._scale() * torch.kron(left.reshape(*left.shape, *[1] * (right.dim() - 2)), right.contiguous())
        return next(parts[name] for name in DIFFERENCES if name in parts)

    def applied(self, weight: Tensor, strength: float = 1.0) -> Tensor:
        """The layer's weight with this adapter at `strength`, in float32: W + strength · (W' − W)."""
        base = weight.float()
        parts = {name: part.float().to(base.device) for name, part in self.tensors.items()}
        if self.kind == OFT:
            turned = _rotated(parts["oft_blocks"], self._bound(parts["oft_blocks"], base), base)
            tuned = turned * _column(parts["rescale"], base) if "rescale" in parts else turned
        elif self.kind == BOFT:
            turned = _butterfly(parts["oft_blocks"], self._bound(parts["oft_blocks"], base), base)
            tuned = turned * _column(parts["rescale"], base) if "rescale" in parts else turned
        elif self.kind == OFT_INPUT:
            tuned = turned_inputs(parts[VECTORS], bool(self.tensors.get(SCALED, False)), base)
        elif self.kind == GLORA:
            tuned = base + self._glora(parts, base)
        elif self.kind == IA3:
            share = 1 + parts["weight"]
            tuned = base * (share.reshape(1, -1, *[1] * (base.dim() - 2)) if bool(self.tensors["on_input"]) else
                            _column(share, base))
        elif self.kind == REPLACED:
            tuned = parts["set_weight"].reshape(base.shape)
        else:
            tuned = base + self.delta().to(base.device).reshape(base.shape)
        if MAGNITUDE in parts:
            magnitude = parts[MAGNITUDE]
            tuned = with_magnitude(tuned, magnitude, by_input=magnitude.shape[0] != base.shape[0])
        return torch.lerp(base, tuned, strength)

    def _scale(self) -> float:
        return 1.0 if self.alpha is None or self.rank is None else self.alpha / self.rank

    def _bound(self, blocks: Tensor, base: Tensor) -> float:
        """The largest norm of all blocks together; 0: none."""
        return (self.alpha or 0.0) * base.shape[0]

    def _old_glora(self, out: int, inner: int) -> bool:
        """Whether the matrices stand in LyCORIS' first order, in which B₂ · B₁ and W · A₂ · A₁ are meant.

        Of a square layer with as many ranks as channels both orders would do; then the first one is meant.
        """
        a1, a2, b1, b2 = (self.tensors[f"{name}.weight"].flatten(1).shape for name in ("a1", "a2", "b1", "b2"))
        old = b2[1] == b1[0] == a1[0] == a2[1]
        new = b2[0] == b1[1] == a1[1] == a2[0]
        return old and (not new or a2[0] == out == inner)

    def _glora(self, parts: Mapping[str, Tensor], base: Tensor) -> Tensor:
        a1, a2, b1, b2 = (parts[f"{name}.weight"].flatten(1) for name in ("a1", "a2", "b1", "b2"))
        if self._old_glora(base.shape[0], base[0].numel()):
            a1, a2, b1, b2 = a2, a1, b2, b1
        scale = 1.0 if self.alpha is None else self.alpha / a1.shape[1]
        return scale * (torch.einsum("oi...,ij,jk->ok...", base, a1, a2) + (b1 @ b2).reshape(base.shape))


def _product(parts: Mapping[str, Tensor], name: str, core: str) -> Tensor:
    """A whole matrix or kernel: as it is, A · B, or with a core."""
    if name in parts:
        return parts[name]
    a, b = parts[f"{name}_a"], parts[f"{name}_b"]
    return torch.einsum("ij...,jr,ip->pr...", parts[core], b, a) if core in parts else a @ b


def _rotations(blocks: Tensor, bound: float) -> Tensor:
    """Cayley's transform (I + Q) · (I − Q)⁻¹ of Q = blocks − blocksᵀ, which is scaled down to the bound."""
    skew = blocks - blocks.transpose(-1, -2)
    if bound > 0:
        skew = skew * (bound / (skew.norm() + 1e-8)).clamp(max=1.0)
    one = torch.eye(blocks.shape[-1], device=blocks.device)
    return (one + skew) @ torch.linalg.inv(one - skew)


def _rotated(blocks: Tensor, bound: float, base: Tensor) -> Tensor:
    rows = base.reshape(blocks.shape[0], blocks.shape[1], -1)
    return torch.einsum("knm,kni->kmi", _rotations(blocks, bound), rows).reshape(base.shape)


def _butterfly(blocks: Tensor, bound: float, base: Tensor) -> Tensor:
    """Each layer of blocks turns pairs of groups of channels that lie twice as far apart as in the one before."""
    size = blocks.shape[-1]
    rows = base.flatten(1)
    for level, turn in enumerate(_rotations(blocks, bound)):
        far = 2 ** level * size // 2
        mixed = rows.reshape(-1, 2, far, rows.shape[1]).transpose(1, 2).reshape(-1, size, rows.shape[1])
        turned = turn @ mixed
        rows = turned.reshape(-1, far, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)
    return rows.reshape(base.shape)


def _column(values: Tensor, base: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (base.dim() - 1))
