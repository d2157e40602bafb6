"""How LoRA files name a layer, as one table and two functions that invert each other.

kohya's sd-scripts write the module path with underscores for dots behind a prefix that names the component
(`lora_unet_down_blocks_0_…`). Underscores inside a word are lost that way; `WORDS` lists the words of Stable
Diffusion's modules that hold one, which is enough to undo it without the model at hand.
"""

from __future__ import annotations

import re

KOHYA_PREFIX = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
"""With two text encoders. A model with one names it `lora_te_` (below)."""

KOHYA_SINGLE_TEXT_PREFIX = "lora_te_"

WORDS = (
    "down_blocks", "up_blocks", "mid_block", "transformer_blocks", "to_q", "to_k", "to_v", "to_out", "proj_in",
    "proj_out", "conv_in", "conv_out", "conv_shortcut", "time_emb_proj", "time_embedding", "add_embedding",
    "class_embedding", "linear_1", "linear_2", "text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj",
    "text_projection", "position_embedding", "token_embedding",
)

_JOINED = re.compile("|".join(sorted(map(re.escape, WORDS), key=len, reverse=True)) + "|_")


def to_kohya(name: str, *, two_text_encoders: bool) -> str:
    """`unet.mid_block.attentions.0.proj_in` → `lora_unet_mid_block_attentions_0_proj_in`."""
    component, path = name.split(".", 1)
    prefix = KOHYA_PREFIX[component]
    if component == "text_encoder" and not two_text_encoders:
        prefix = KOHYA_SINGLE_TEXT_PREFIX
    return prefix + path.replace(".", "_")


def from_kohya(key: str) -> str | None:
    """The inverse of `to_kohya` for either text prefix; None for a key of another kind."""
    for component, prefix in (*KOHYA_PREFIX.items(), ("text_encoder", KOHYA_SINGLE_TEXT_PREFIX)):
        if key.startswith(prefix):
            path = _JOINED.sub(lambda match: match[0] if len(match[0]) > 1 else ".", key[len(prefix):])
            return f"{component}.{path}"
    return None


def with_text_model(name: str) -> str:
    """Put `text_model.` back where newer transformers dropped it from the module path.

    transformers ≥ 5.6 flattened `CLIPTextModel`; every LoRA reader still expects the older path.
    """
    component, path = name.split(".", 1)
    if component.startswith("text_encoder") and path.startswith("encoder."):
        return f"{component}.text_model.{path}"
    return name
