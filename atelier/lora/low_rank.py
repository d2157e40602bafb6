"""Singular values of adapters, and the closest adapters of a smaller rank.

By Eckart and Young (1936), of all matrices of rank r the one with the r largest singular values of a matrix is closest
to it in the Frobenius norm. Everything is computed in float64 on the CPU, so that the same file gives the same result
everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .weights import LoraModule


@dataclass(frozen=True)
class Factors:
    """U · diag(s) · Vᵀ, the singular values falling. Float64."""

    left: Tensor
    """U, [out, r]."""
    values: Tensor
    """s, [r]."""
    right: Tensor
    """Vᵀ, [r, in · k · k]."""

    def module(self, rank: int, shape: Sequence[int]) -> LoraModule:
        """The adapter of the `rank` largest singular values, which both of its matrices share.

        Args:
            rank: Of the adapter; no more than there are values.
            shape: Of the layer's weight.
        """
        rank = min(rank, len(self.values))
        root = self.values[:rank].sqrt()
        down = (root[:, None] * self.right[:rank]).float().reshape(rank, *shape[1:])
        up = (self.left[:, :rank] * root).float().reshape(shape[0], rank, *[1] * (len(shape) - 2))
        return LoraModule(down.contiguous(), up.contiguous(), float(rank))

    def rank_for(self, share: float) -> int:
        """The fewest singular values whose squares hold `share` of the squares of all; at least 1."""
        squares = self.values.square()
        kept = squares.cumsum(0) / squares.sum()
        return min(len(kept), int((kept < share - 1e-12).sum()) + 1)


def factors_of(module: LoraModule) -> Factors:
    """Those of (alpha / r) · B · A, without computing the product: by the QR factors of B and Aᵀ."""
    left, inner_left = torch.linalg.qr(module.up.double().flatten(1))
    right, inner_right = torch.linalg.qr(module.down.double().flatten(1).t())
    u, values, v = torch.linalg.svd(inner_left @ inner_right.t() * (module.alpha / module.rank), full_matrices=False)
    return Factors(left @ u, values, v @ right.t())


def largest_factors(matrix: Tensor, most: int) -> Factors:
    """The `most` largest singular values of a whole matrix and their vectors, by the eigenvectors of its smaller Gram
    matrix: many times quicker than a full decomposition, and as exact for all values above 1e-8 of the largest.

    Args:
        matrix: [out, in].
        most: Singular values wanted.
    """
    matrix = matrix.double()
    tall = matrix.shape[0] > matrix.shape[1]
    side = matrix.t() if tall else matrix
    squares, vectors = torch.linalg.eigh(side @ side.t())
    most = min(most, len(squares))
    vectors = vectors.flip(1)[:, :most]
    values = squares.flip(0)[:most].clamp(min=0).sqrt()
    others = (vectors.t() @ side) / values.clamp(min=torch.finfo(torch.float64).tiny)[:, None]
    others[values == 0] = 0
    return Factors(others.t(), values, vectors.t()) if tall else Factors(vectors, values, others)


def norm(module: LoraModule) -> float:
    """The Frobenius norm of (alpha / r) · B · A, from the two r × r Gram matrices."""
    up, down = module.up.double().flatten(1), module.down.double().flatten(1)
    square = float(((up.t() @ up) * (down @ down.t())).sum())
    return abs(module.alpha / module.rank) * math.sqrt(max(0.0, square))
