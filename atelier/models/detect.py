"""Detect the family of a UNet and the configuration of each component from names and shapes of tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..errors import AtelierError
from .expected_shapes import check_ranks, check_whole
from .families import FAMILIES, Family
from .keymap import Shape
from .prefixes import spec_of
from .text_keys import text_config
from .unet_keys import TIME_IDS_WIDTH, unet_config
from .vae_keys import vae_config


def family_of_shapes(shapes: Mapping[str, Shape]) -> Family:
    """The family a UNet belongs to, by its conditioning and its input (shapes by diffusers name).

    Raises:
        AtelierError: it is none of ours.
    """
    check_ranks("unet", shapes)
    context = next((shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), 0)
    linear = any(name.endswith("proj_in.weight") and len(shape) == 2 for name, shape in shapes.items())
    vector = shapes.get("add_embedding.linear_1.weight", (0, 0))[1]
    channels = shapes.get("conv_in.weight", (0, 0))[1]
    if "class_embedding.weight" in shapes:
        base = "x4-upscaler"
    elif vector:
        # The refiner's vector is the pooled text and five numbers, SDXL's has six; and the refiner's other text input
        # is as wide as the pooled one.
        base = "sdxl-refiner" if vector - 5 * TIME_IDS_WIDTH == context else "sdxl"
    else:
        base = "sd2" if linear else "sd1"
    for key in (base, f"{base}-inpainting"):
        if key in FAMILIES and FAMILIES[key].in_channels == channels:
            return FAMILIES[key]
    raise AtelierError(f"This UNet takes {channels} input channels, as no kind of {FAMILIES[base].name} does.",
                       "Choose a text-to-image, inpainting or x4 upscaling model.")


def component_config(folder: str, shapes: Mapping[str, Shape], family: Family) -> dict[str, Any]:
    """The diffusers configuration of a component, from its shapes.

    Raises:
        AtelierError: no model of this family can have these shapes, or a tensor is missing.
    """
    check_ranks(folder, shapes)
    if folder == "unet":
        # SD2's attention overflows in half precision.
        config = unet_config(shapes, sample_size=family.native_size // 8, upcast=family.key.startswith("sd2"))
    elif folder == "vae":
        config = vae_config(shapes, family.latent_scale, sample_size=family.native_size,
                            force_upcast=family.key.startswith("sdxl"))
    else:
        config = text_config(shapes, spec_of(folder, family).architecture)
    check_whole(folder, shapes, config)
    return config


def what_else(names: Collection[str]) -> str:
    """A sentence on what a file without a UNet looks like; empty if unknown."""
    if any("lora_" in name or ".lora" in name for name in names):
        return " It looks like a LoRA."
    if any("decoder.conv_in" in name or "decoder.up" in name for name in names):
        return " It looks like a VAE."
    if any("double_blocks" in name or "joint_blocks" in name for name in names):
        return " It looks like a transformer model such as Flux or SD3."
    return ""
