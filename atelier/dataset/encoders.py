"""What turns prepared pictures and captions into rows of the cache: the VAE and the text encoders of a model on disk.

Models of another kind bring encoders of their own, which build their rows with `latent_row`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from ..errors import AtelierError
from ..models.handle import DiffusersModel
from ..models.text import TextStack
from .inpaint_masks import inpaint_masks
from .prepare import Prepared
from .store import Row
from .types import Sample

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

_log = logging.getLogger("atelier")


class PictureEncoder(Protocol):
    """Encodes prepared pictures."""

    def __call__(self, samples: Sequence[Sample], pictures: Sequence[Prepared], flip: bool) -> list[Row]:
        """The cache rows (see `latent_row`) of `samples`, whose prepared `pictures` have one size; mirrored where
        `flip` is set.

        Raises:
            AtelierError: latents are not finite; the message names the picture.
        """
        ...


class CaptionEncoder(Protocol):
    """Encodes captions."""

    def __call__(self, captions: Sequence[str]) -> list[Row]:
        """Their conditioning by name, without a batch dimension; only the model's denoiser knows the names."""
        ...


class TextEncoder:
    """Encodes captions with CLIP: "embeds" [77, D] and, where the model has it, "pooled" [P]."""

    def __init__(self, text: TextStack) -> None:
        self.text = text

    def __call__(self, captions: Sequence[str]) -> list[Row]:
        """The rows of `captions`."""
        encoded = self.text.encode(captions)
        rows: list[Row] = [{"embeds": embeds} for embeds in encoded.embeds.unbind()]
        if encoded.pooled is not None:
            for row, pooled in zip(rows, encoded.pooled.unbind(), strict=True):
                row["pooled"] = pooled
        return rows


class LatentEncoder:
    """Encodes prepared pictures with the VAE of a model.

    Latents are (encoded - `latent_shift`) * `latent_scale`, as diffusers' pipelines compute them.

    Args:
        model: Knows scale and shift.
        vae: Encodes.
        device: Where it is.
        masks: Random masks of each picture, for an inpainting model; 0 for others.
    """

    def __init__(self, model: DiffusersModel, vae: AutoencoderKL, device: torch.device, masks: int = 0) -> None:
        self.vae: Any = vae  # diffusers' decorators hide its methods' types
        self.device, self.masks = device, masks
        self.scale, self.shift = model.latent_scale, model.latent_shift

    def __call__(self, samples: Sequence[Sample], pictures: Sequence[Prepared], flip: bool) -> list[Row]:
        """The cache rows of `samples`, whose prepared `pictures` have one size; mirrored where `flip` is set.

        Raises:
            AtelierError: latents are not finite in float32 either.
        """
        pixels = torch.stack([torch.tensor(picture.pixels) for picture in pictures]).permute(0, 3, 1, 2)
        pixels = (pixels.flip(-1) if flip else pixels).to(self.device, torch.float32) / 127.5 - 1
        mean, std = self._moments(pixels)
        rows: list[Row] = []
        for i, (sample, picture) in enumerate(zip(samples, pictures, strict=True)):
            if not finite(mean[i], std[i]):
                raise AtelierError(f"The VAE gives latents that are not finite for {sample.image}.",
                                   "Remove the picture if it is the only one; otherwise the model's VAE is damaged.")
            rows.append(latent_row(picture, mean[i], std[i], flip))
        if self.masks:
            for row, more in zip(rows, self._inpainting(samples, pixels, flip), strict=True):
                row |= more
        return rows

    def _inpainting(self, samples: Sequence[Sample], pixels: Tensor, flip: bool) -> list[Row]:
        """What an inpainting model is given of each picture, for each of its random masks: as
        `StableDiffusionInpaintPipeline.prepare_mask_latents`, with the mean of the latents' distribution."""
        size = (pixels.shape[-1], pixels.shape[-2])
        drawn = torch.stack([torch.tensor(inpaint_masks(sample.digest, *size, self.masks)) for sample in samples])
        masks = (drawn.flip(-1) if flip else drawn).float()  # [B, K, H, W]
        means = [self._moments(pixels * (masks[:, number, None].to(self.device) < 0.5))[0]
                 for number in range(self.masks)]
        masked = torch.stack(means, 1)
        small = interpolate(masks, masked.shape[-2:])[:, :, None]
        return [{"inpaint_masks": small[i].clone(), "masked": masked[i].clone()} for i in range(len(samples))]

    def _moments(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [B, 4, h, w] of the scaled latents, float32 on the CPU; in float32 from here on
        where the VAE overflows."""
        mean, std = self._encoded(pixels)
        if not finite(mean, std) and self.vae.dtype != torch.float32:
            # SDXL's first VAE overflows in float16 on nearly every picture.
            _log.warning("The VAE overflows in %s; going on in float32.", self.vae.dtype)
            self.vae.to(dtype=torch.float32)
            mean, std = self._encoded(pixels)
        return mean, std

    def _encoded(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        return (posterior.mean.float().cpu() - self.shift) * self.scale, posterior.std.float().cpu() * self.scale


def latent_row(picture: Prepared, mean: Tensor, std: Tensor, flip: bool) -> Row:
    """The cache row of an encoded picture.

    Args:
        picture: Its geometry and mask.
        mean: [C, …, h, w], of the latents' distribution, scaled; float32 on the CPU.
        std: As `mean`.
        flip: Whether it was mirrored before encoding.
    """
    row = {"mean": mean, "std": std, "ids": torch.tensor(picture.geometry.time_ids(flip), dtype=torch.int32)}
    if picture.mask is not None:
        mask = torch.tensor(picture.mask)[None].float() / 255
        mask = adaptive_avg_pool2d(mask.flip(-1) if flip else mask, (mean.shape[-2], mean.shape[-1]))
        row["mask"] = mask.reshape(1, *[1] * (mean.dim() - 3), *mask.shape[-2:])
    return row


def finite(*tensors: Tensor) -> bool:
    """Whether no number in them is NaN or infinite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
