"""DoRA's magnitude: lengths of a layer's channels that are learned apart from their directions.

Liu et al. 2024 (https://arxiv.org/abs/2402.09353), equation 5, has one per output channel: W' = m · V / ‖V‖ with
V = W + ΔW. LyCORIS' default has one per input channel instead, with that norm.
"""

from __future__ import annotations

from torch import Tensor


def with_magnitude(tuned: Tensor, magnitude: Tensor, *, by_input: bool) -> Tensor:
    """W' of V = `tuned`, a weight of at least two dimensions, in its type.

    Args:
        tuned: [out, in, …].
        magnitude: m, as many numbers as there are channels, in any shape.
        by_input: Whether it belongs to the input channels.
    """
    channels = tuned.transpose(0, 1) if by_input else tuned
    norm = channels.flatten(1).norm(dim=1)
    ratio = (magnitude.float().flatten().to(tuned.device) / norm).reshape(-1, *[1] * (tuned.dim() - 1))
    return tuned * (ratio.transpose(0, 1) if by_input else ratio)
