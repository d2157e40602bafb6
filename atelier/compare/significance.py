"""Significance of differences between paired measurements: a sign-flip test and Holm's correction."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ..errors import AtelierError

EXACT = 16
"""Up to this many pairs all 2^n sign patterns are enumerated; above, `DRAWS` random ones."""
DRAWS = 65_536


def sign_flip_p(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value of Fisher's paired randomisation test on the mean (The Design of Experiments, 1935).

    Under the null hypothesis that both models are equal, each difference could as well have the other sign. p is the
    share of sign patterns whose mean is at least as far from 0 as the one observed. It assumes nothing about the
    distribution of the differences.

    Args:
        differences: First minus second, one for each pair.
        seed: Seed of the random patterns.

    Raises:
        AtelierError: there are no pairs.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not len(values):
        raise AtelierError("There are no pairs to compare.", "Score at least one picture of each model.")
    # Tolerance: sums of the same numbers in another order differ in their last bits.
    observed = abs(values.sum()) * (1 - 1e-12)
    if len(values) <= EXACT:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
        return float((np.abs(sums) >= observed).mean())
    signs = np.random.default_rng(seed).integers(0, 2, (DRAWS, len(values)), dtype=np.int8) * 2 - 1
    extreme = int((np.abs(signs @ values) >= observed).sum())
    return (extreme + 1) / (DRAWS + 1)


def fewest_pairs(comparisons: int, significant: float) -> int:
    """The fewest pairs with which one of `comparisons` differences can have a corrected p below `significant`.

    The most extreme difference has the same sign in all n pairs: 2 of 2^n patterns are as extreme. Holm's correction
    multiplies the smallest p by the number of comparisons.
    """
    return next(n for n in itertools.count(1) if 2 ** (1 - n) * comparisons < significant)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple comparisons (Holm 1979, A simple sequentially rejective multiple test
    procedure), in the order given."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = largest
    return corrected
