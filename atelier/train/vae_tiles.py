"""Sample pictures decoded in overlapping tiles where a whole one does not fit beside the trainer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

log = logging.getLogger("atelier")

TILES = (64, 48, 32, 24, 16)
"""Sides in latents, the best first: smaller ones know less of what surrounds them."""
MAPS = 4
"""How many maps of full size with the channels of the second level a decoder holds at a time: what the last
upsampling gives, and what the residual block behind it makes of that."""


def decode_in_tiles(vae: AutoencoderKL, latents: Tensor, free: int | None) -> int:
    """Have the VAE decode in tiles if a picture as a whole needs more memory than there is.

    Args:
        vae: On its device.
        latents: [B, C, h, w]; decoded one by one.
        free: Bytes free on the device with the VAE on it; None where they are not known.

    Returns:
        The side of a tile in latents; 0 for none.
    """
    height, width = latents.shape[-2:]
    if free is None or decoding_bytes(vae, height, width) <= free:
        return 0
    fitting = [side for side in TILES if decoding_bytes(vae, side, side) <= free]
    side = fitting[0] if fitting else TILES[-1]
    if height <= side and width <= side:
        return 0
    vae.enable_tiling()
    vae.tile_latent_min_size, vae.tile_sample_min_size = side, side * _scale(vae)
    log.info("The sample picture is decoded in tiles of %d pixels: the card has no room for it as a whole.",
             side * _scale(vae))
    return side


def decoding_bytes(vae: AutoencoderKL, height: int, width: int) -> int:
    """About what decoding latents of that size takes on the device, beside the VAE's own weights."""
    channels = vae.config["block_out_channels"]
    widest = channels[min(1, len(channels) - 1)]
    return MAPS * widest * height * width * _scale(vae) ** 2 * vae.dtype.itemsize


def _scale(vae: AutoencoderKL) -> int:
    """Pixels of a latent's side."""
    return 2 ** (len(vae.config["block_out_channels"]) - 1)
