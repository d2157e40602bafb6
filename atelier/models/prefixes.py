"""The prefixes of components in single-file checkpoints, and the key table of each component."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from .families import Family, TextEncoderSpec
from .keymap import KeyTable
from .text_keys import clip_table, layer_count, open_clip_table
from .unet_keys import UNetLayout, unet_table
from .vae_keys import vae_table

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
EMA_PREFIX = "model_ema."

VAE_SURPLUS = ("loss.", "model_ema.")
"""Tensors below the VAE's prefix that training left there and nothing reads: the loss network and an averaged copy."""
TEXT_SURPLUS = ("attn_mask", "visual.", "vision_model.", "visual_projection.")
"""Tensors below a text encoder's prefix that nothing reads: a constant, and CLIP's vision model."""


@dataclass(frozen=True)
class TextPrefix:
    """The prefix of a text encoder's tensors in the checkpoints of a family (its inpainting variant included)."""

    family: str
    folder: str
    prefix: str


TEXT_PREFIXES = (
    # Where a family has several, the first is written and all are read.
    TextPrefix("sd1", "text_encoder", "cond_stage_model.transformer."),
    TextPrefix("sd2", "text_encoder", "cond_stage_model.model."),
    TextPrefix("sd2", "text_encoder", "conditioner.embedders.0.model."),
    TextPrefix("x4-upscaler", "text_encoder", "cond_stage_model.model."),
    TextPrefix("sdxl", "text_encoder", "conditioner.embedders.0.transformer."),
    TextPrefix("sdxl", "text_encoder_2", "conditioner.embedders.1.model."),
    TextPrefix("sdxl-refiner", "text_encoder_2", "conditioner.embedders.0.model."),
)


def text_prefixes(family: Family, folder: str) -> list[str]:
    """The prefixes a text encoder may have, the one to write first."""
    key = family.key.removesuffix("-inpainting")
    return [text.prefix for text in TEXT_PREFIXES if (text.family, text.folder) == (key, folder)]


def prefix_of(folder: str, family: Family) -> str:
    """The prefix of a component's tensors in a checkpoint of this family."""
    fixed = {"unet": UNET_PREFIX, "vae": VAE_PREFIX}
    return fixed.get(folder) or text_prefixes(family, folder)[0]


def original_table(folder: str, names: Collection[str], family: Family) -> KeyTable:
    """The table of a component, from its names in the original layout."""
    return unet_table(UNetLayout.from_original(names)) if folder == "unet" else _table(folder, names, family)


def diffusers_table(folder: str, names: Collection[str], family: Family) -> KeyTable:
    """The table of a component, from its names in the diffusers layout."""
    return unet_table(UNetLayout.from_diffusers(names)) if folder == "unet" else _table(folder, names, family)


def spec_of(folder: str, family: Family) -> TextEncoderSpec:
    """What the family does with a text encoder."""
    return next(spec for spec in family.text_encoders if spec.folder == folder)


def _table(folder: str, names: Collection[str], family: Family) -> KeyTable:
    if folder == "vae":
        return vae_table(names)
    return clip_table() if spec_of(folder, family).architecture == "clip" else open_clip_table(layer_count(names))
