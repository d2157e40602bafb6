"""How LoRA files name a layer, and the way from every one of these names to diffusers' module path.

kohya's sd-scripts write the module path with underscores for dots behind a prefix that names the component
(`lora_unet_down_blocks_0_…`). Underscores inside a word are lost that way; `WORDS` lists the words of Stable
Diffusion's modules that hold one, which is enough to undo it without the model at hand. For SDXL, sd-scripts name the
UNet's layers as checkpoints do (`lora_unet_input_blocks_1_1_…`), and A1111 and Forge find them by no other name;
ComfyUI's own files do so for every family. The converter's table translates those.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models.keymap import KeyTable

FORMATS = ("kohya", "diffusers", "peft")
"""What a LoRA can be written as: see `atelier.lora.formats`."""

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
"""What a LoRA may stand on, by diffusers' folder names."""

OTHER_NETWORK = "diffusion_model"
"""The component of networks other than Stable Diffusion's: their layers bear the names of ComfyUI's modules, which are
those of the published files, and stand in LoRA files as they are (`diffusion_model.double_blocks.0.img_attn.qkv`)."""

KOHYA_PREFIX = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
"""With two text encoders. A model with one names it `lora_te_` (below)."""

KOHYA_SINGLE_TEXT_PREFIX = "lora_te_"

LYCORIS_PREFIX = "lycoris_"
"""In SimpleTuner's LyCORIS files, which hold the UNet alone."""

COMPONENT_PREFIX = {"diffusion_model.": "unet",
                    **{f"{before}{encoder}.{after}": folder for encoder, folder in (
                        ("clip_l", "text_encoder"), ("clip_h", "text_encoder"), ("clip_g", "text_encoder_2"))
                       for before in ("text_encoders.", "") for after in ("transformer.", "")}}
"""In front of the layers in files of ComfyUI's own trainer and extractor (`text_encoders.clip_l.transformer.…`), and in
OneTrainer's OMI format (`clip_l.…`)."""

WORDS = (
    "down_blocks", "up_blocks", "mid_block", "transformer_blocks", "to_q", "to_k", "to_v", "to_out", "proj_in",
    "proj_out", "conv_in", "conv_out", "conv_shortcut", "time_emb_proj", "time_embedding", "add_embedding",
    "class_embedding", "linear_1", "linear_2", "text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj",
    "text_projection", "position_embedding", "token_embedding", "layer_norm1", "layer_norm2", "final_layer_norm",
    "conv_norm_out",
    # in checkpoints' names of the UNet's layers
    "input_blocks", "middle_block", "output_blocks", "in_layers", "out_layers", "emb_layers", "skip_connection",
    "time_embed", "label_emb",
)

_JOINED = re.compile("|".join(sorted(map(re.escape, WORDS), key=len, reverse=True)) + "|_")

_TRANSFORMER = r"transformer_blocks\.\d+\.(attn[12]\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2))"
_LAYER = {
    "unet": re.compile(
        rf"((down_blocks|up_blocks)\.\d+|mid_block)\.(attentions\.\d+\.({_TRANSFORMER}|proj_in|proj_out)|"
        r"resnets\.\d+\.(conv1|conv2|conv_shortcut|time_emb_proj)|(down|up)samplers\.0\.conv)|"
        r"conv_in|conv_out|(time|add)_embedding\.linear_[12]"),
    "text": re.compile(r"text_model\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])|text_projection"),
}
"""Every linear and convolution layer of Stable Diffusion's UNet and text encoders, by module path."""

_NORM = {
    "unet": re.compile(r"((down_blocks|up_blocks)\.\d+|mid_block)\.(attentions\.\d+\.(norm|"
                       r"transformer_blocks\.\d+\.norm[123])|resnets\.\d+\.norm[12])|conv_norm_out"),
    "text": re.compile(r"text_model\.(encoder\.layers\.\d+\.layer_norm[12]|final_layer_norm)"),
}
"""Every norm of them."""


def of_other_network(name: str) -> bool:
    """Whether a layer's name is one of a network other than Stable Diffusion's."""
    return name.startswith(f"{OTHER_NETWORK}.")


def canonical(name: str) -> str:
    """The one name of a layer that ComfyUI names: diffusers' where it is Stable Diffusion's, else its own.

    `diffusion_model.middle_block.1.proj_in` → `unet.mid_block.attentions.0.proj_in`.
    """
    if not of_other_network(name):
        return name
    return known_layer("unet", name.split(".", 1)[1]) or name


def to_kohya(name: str, *, sdxl: bool) -> str:
    """The key of a layer as sd-scripts write it for SD1 and SD2, or for SDXL.

    `unet.mid_block.attentions.0.proj_in` → `lora_unet_mid_block_attentions_0_proj_in`, or for SDXL
    `lora_unet_middle_block_1_proj_in`.
    """
    component, path = name.split(".", 1)
    prefix = KOHYA_PREFIX[component]
    if component == "text_encoder" and not sdxl:
        prefix = KOHYA_SINGLE_TEXT_PREFIX
    if component == "unet" and sdxl:
        match = _checkpoint_names().match_diffusers(path)
        path = match.original if match else path
    return prefix + path.replace(".", "_")


def from_kohya(key: str, *, norms: bool = False) -> str | None:
    """The inverse of `to_kohya` for either text prefix, with the UNet's layers named as by diffusers or as in
    checkpoints; None for a key of another kind. With `norms`, they count as layers."""
    prefixes = (*KOHYA_PREFIX.items(), ("text_encoder", KOHYA_SINGLE_TEXT_PREFIX), ("unet", LYCORIS_PREFIX))
    for component, prefix in prefixes:
        if key.startswith(prefix):
            path = _JOINED.sub(lambda match: match[0] if len(match[0]) > 1 else ".", key[len(prefix):])
            return known_layer(component, path, norms=norms)
    return None


def known_layer(component: str, path: str, *, norms: bool = False) -> str | None:
    """`component.path` with the path as diffusers has it; None where Stable Diffusion has no such layer.

    Args:
        component: One of `COMPONENTS`.
        path: A module path as diffusers, transformers or checkpoints name it, now or in former versions.
        norms: Whether norms count as layers.
    """
    path = path.replace(".processor.", ".")  # diffusers before 0.22, whose attention processors held the LoRA
    if component == "unet":
        path = re.sub(r"\.to_out$", ".to_out.0", path)
        match = _checkpoint_names().match_original(path)
        path = match.diffusers[0] if match else path
        return f"unet.{path}" if _is_layer("unet", path, norms) else None
    # diffusers before 0.18 named the text encoder's projections like the UNet's.
    path = re.sub(r"\.self_attn\.to_(q|k|v|out)(\.0)?$", r".self_attn.\1_proj", path)
    name = with_text_model(f"{component}.{path}")
    return name if _is_layer("text", name.split(".", 1)[1], norms) else None


def _is_layer(network: str, path: str, norms: bool) -> bool:
    return bool(_LAYER[network].fullmatch(path) or (norms and _NORM[network].fullmatch(path)))


def with_text_model(name: str) -> str:
    """Put `text_model.` back where newer transformers dropped it from the module path.

    transformers ≥ 5.6 flattened `CLIPTextModel`; every LoRA reader still expects the older path.
    """
    component, path = name.split(".", 1)
    if component.startswith("text_encoder") and path.startswith(("encoder.", "final_layer_norm")):
        return f"{component}.text_model.{path}"
    return name


@lru_cache(maxsize=1)
def _checkpoint_names() -> KeyTable:
    """The converter's UNet table for a LoRA, which alone does not tell the layout.

    Every published model has two residual blocks a level, so that only the place of an upsampler depends on whether a
    transformer stands before it; both places are in the table, and no file has both.
    """
    # Nodes read this module's lists when the host starts; the table is for those who read a file.
    from ..models.keymap import KeyTable
    from ..models.unet_keys import UNetLayout

    levels = (2, 2, 2, 2)
    blocks = sum(levels) + len(levels)
    # Of two places for one layer the last is written: SDXL has a transformer before each upsampler.
    return KeyTable(pair for attention in (False, True)
                    for pair in UNetLayout(levels, (attention,) * blocks).pairs())
