"""OFTv2: rotations of blocks of a layer's inputs (Qiu et al. 2025, https://arxiv.org/abs/2506.19847), as OneTrainer
trains them.

A block's rotation is given by the numbers above the diagonal of a skew-symmetric matrix Q, row by row, and approximated
by the first terms of Cayley's transform as a series: R = I + 2 Q + 2 Q² + 2 Q³ + Q⁴. OneTrainer turns what goes into a
linear layer, W' = W · Rᵀ, and the weights of a convolution, W' = W · R.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

VECTORS, SCALED = "oft_R.weight", "oft_R.scaled_oft"
"""What stands behind a layer's name: [blocks, numbers], of one block where all share it; and whether these are divided
by 2 · √(size − 1)."""


def size_of(vectors: Tensor) -> int:
    """The size of the blocks: n, where n · (n − 1) / 2 numbers are given.

    Raises:
        ValueError: there is none.
    """
    numbers = vectors.shape[-1]
    size = (1 + math.isqrt(1 + 8 * numbers)) // 2
    if vectors.dim() != 2 or numbers < 1 or size * (size - 1) != 2 * numbers:
        raise ValueError(f"{VECTORS} of shape {list(vectors.shape)} is of no square blocks")
    return size


def turned_inputs(vectors: Tensor, scaled: bool, weight: Tensor) -> Tensor:
    """The weight, [out, in, …], with its inputs turned.

    Args:
        vectors: Numbers of each block.
        scaled: Whether they are to be divided.
        weight: Float32, of a linear layer or a convolution.
    """
    size = size_of(vectors)
    above = vectors / (2 * math.sqrt(size - 1)) if scaled else vectors
    rows, columns = torch.triu_indices(size, size, 1, device=vectors.device)
    skew = vectors.new_zeros(len(vectors), size, size)
    skew[:, rows, columns] = above
    skew = skew - skew.transpose(1, 2)
    square = skew @ skew
    rotations = torch.eye(size, device=vectors.device) + 2 * (skew + square + square @ skew) + square @ square
    if weight.dim() == 2:
        rotations = rotations.transpose(1, 2)
    blocks = weight.reshape(weight.shape[0], -1, size)
    return torch.einsum("ork,rkc->orc", blocks, rotations.expand(blocks.shape[1], size, size)).reshape(weight.shape)
