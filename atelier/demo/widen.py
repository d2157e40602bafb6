"""Embed narrow trained networks in the wide ones that loaders demand, computing the same function.

The UNet's channels are each repeated twice, which leaves the statistics of every norm as they were; layers halve the
weights of their doubled inputs. The autoencoder's channels are followed by zeros, in norm groups of their own. Both
rules go by the tensor's name in the LDM layout and are exact but for rounding to fp16.
"""

from __future__ import annotations

import numpy as np

VAE_FACTOR = 8
_SMALLEST_VAE_WIDTH = 16
_SQRT_HALF = np.float32(0.70710678118654752)
_SQRT_VAE_FACTOR = np.float32(2.8284271247461901)


def double_unet(name: str, weight: np.ndarray) -> np.ndarray:
    """Widen one tensor of the UNet twofold.

    Args:
        name: LDM name without prefix, such as "input_blocks.1.0.in_layers.2.weight".
        weight: fp32; vectors, matrices and convolutions with outputs first.

    Returns:
        fp32 of the wide shape.
    """
    module = name.rpartition(".")[0]
    if module == "time_embed.0" and weight.ndim == 2:
        # Sinusoid i of n frequencies is sinusoid 2i of 2n: the wide table's odd ones are ignored, nothing is halved.
        weight = np.stack([weight, np.zeros_like(weight)], axis=2).reshape(weight.shape[0], -1)
    elif weight.ndim > 1 and module != "input_blocks.0.0" and not module.endswith(("attn2.to_k", "attn2.to_v")):
        # The latent and the text keep their width; everything else arrives twice.
        weight = np.repeat(weight, 2, axis=1) * np.float32(0.5)
    if module.endswith(".to_q"):
        # Heads of twice the size double every product, and attention divides it by √2 more.
        weight = weight * _SQRT_HALF
    return weight if module == "out.2" else np.repeat(weight, 2, axis=0)


def pad_vae(name: str, weight: np.ndarray) -> np.ndarray:
    """Widen one tensor of the autoencoder eightfold with zeros; names, layout and result as in `double_unet`."""
    if ".attn_1.q." in name:
        # Attention divides by the root of its width, which is eight times what it was.
        weight = weight * _SQRT_VAE_FACTOR
    # Pictures, latents and moments (3, 4 and 8 channels) keep their width.
    extra = [(VAE_FACTOR - 1) * n if axis < 2 and n >= _SMALLEST_VAE_WIDTH else 0
             for axis, n in enumerate(weight.shape)]
    return np.pad(weight, [(0, n) for n in extra])
