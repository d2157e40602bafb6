"""Small random models of further families of pictures that the host has, beside those of `kit.host_families`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_AXES = (4, 6, 6)
"""Of the rotary embedding of heads of 16 channels."""
_PIXART = {"num_heads": 4, "patch_size": 2, "hidden_size": 96, "in_channels": 4, "depth": 2, "caption_channels": 64,
           "model_max_length": 16, "input_size": 16, "pe_interpolation": 1}

OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "hidream": ("HiDream", {
        "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 1, "num_single_layers": 1,
        "attention_head_dim": 16, "num_attention_heads": 4, "caption_channels": [64, 64], "text_emb_dim": 32,
        "num_routed_experts": 2, "num_activated_experts": 1, "axes_dims_rope": [8, 4, 4], "max_resolution": [32, 32],
        "llama_layers": [0, 1]}),
    "auraflow": ("AuraFlow", {"dim": 64, "n_layers": 2, "n_double_layers": 1, "n_heads": 4, "global_conddim": 64,
                              "cond_seq_dim": 64, "max_seq": 64}),
    "pixart-alpha": ("PixArtAlpha", {**_PIXART, "micro_condition": True}),
    "pixart-sigma": ("PixArtSigma", {**_PIXART, "micro_condition": False}),
    "hunyuan-dit": ("HunyuanDiT", {"depth": 4, "hidden_size": 64, "num_heads": 4, "text_states_dim": 64, "text_len": 8,
                                   "text_states_dim_t5": 32, "text_len_t5": 12, "input_size": None}),
    "cosmos-predict2": ("CosmosT2IPredict2", {
        "max_img_h": 64, "max_img_w": 64, "max_frames": 4, "in_channels": 16, "out_channels": 16, "patch_spatial": 2,
        "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 64, "num_blocks": 2, "num_heads": 4,
        "crossattn_emb_channels": 64, "pos_emb_cls": "rope3d", "pos_emb_learnable": True,
        "pos_emb_interpolation": "crop", "use_adaln_lora": True, "adaln_lora_dim": 16}),
    "lumina2": ("Lumina2", {"patch_size": 2, "in_channels": 16, "dim": 96, "n_layers": 2, "n_refiner_layers": 1,
                            "n_heads": 6, "n_kv_heads": 2, "cap_feat_dim": 64, "axes_dims": list(_AXES),
                            "axes_lens": [64, 64, 64], "qk_norm": True, "multiple_of": 2, "ffn_dim_multiplier": 4.0}),
    "omnigen2": ("Omnigen2", {
        "axes_dim_rope": list(_AXES), "axes_lens": [64, 64, 64], "ffn_dim_multiplier": None, "hidden_size": 64,
        "in_channels": 16, "multiple_of": 8, "num_attention_heads": 4, "num_kv_heads": 2, "num_layers": 2,
        "num_refiner_layers": 1, "out_channels": None, "patch_size": 2, "text_feat_dim": 64, "timestep_scale": 1000.0}),
    "boogu": ("Boogu", {
        "axes_dim_rope": _AXES, "axes_lens": (64, 64, 64), "hidden_size": 64, "num_layers": 1,
        "num_double_stream_layers": 1, "num_refiner_layers": 1, "num_attention_heads": 4, "num_kv_heads": 2,
        "multiple_of": 8, "instruction_feat_dim": 64}),
    "ernie": ("ErnieImage", {"hidden_size": 96, "num_attention_heads": 6, "num_layers": 2, "ffn_hidden_size": 128,
                             "in_channels": 128, "out_channels": 128, "patch_size": 1, "text_in_dim": 64,
                             "rope_axes_dim": _AXES}),
    "ideogram4": ("Ideogram4", {
        "in_channels": 128, "num_layers": 2, "num_attention_heads": 4, "attention_head_dim": 16,
        "intermediate_size": 128, "adaln_dim": 32, "llm_features_dim": 64, "mrope_section": (2, 3, 3)}),
    "mage-flow": ("MageFlow", {"in_channels": 128, "out_channels": 128, "num_layers": 2, "attention_head_dim": 16,
                               "num_attention_heads": 4, "joint_attention_dim": 64, "axes_dims_rope": _AXES}),
    "joyimage": ("JoyImage", {"in_channels": 16, "hidden_size": 64, "num_attention_heads": 4, "text_dim": 64,
                              "num_layers": 2, "rope_dim_list": list(_AXES)}),
    "lens": ("Lens", {"in_channels": 128, "out_channels": 32, "num_layers": 2, "attention_head_dim": 16,
                      "num_attention_heads": 4, "enc_hidden_dim": 64, "axes_dims_rope": _AXES,
                      "multi_layer_encoder_feature": False, "selected_layer_index": (0,)}),
    "kandinsky5": ("Kandinsky5Image", {
        "model_dim": 64, "ff_dim": 128, "time_dim": 32, "in_text_dim": 64, "in_text_dim2": 32, "visual_embed_dim": 64,
        "axes_dims": _AXES, "num_text_blocks": 1, "num_visual_blocks": 2}),
    "hunyuan-image": ("HunyuanImage21", {
        "in_channels": 64, "patch_size": [1, 1], "out_channels": 64, "vec_in_dim": None, "axes_dim": [8, 8],
        "meanflow": False, "meanflow_sum": False, "context_in_dim": 64, "hidden_size": 64, "mlp_ratio": 4.0,
        "num_heads": 4, "depth": 1, "depth_single_blocks": 1, "theta": 256, "qkv_bias": True, "byt5": False,
        "guidance_embed": False, "use_cond_type_embedding": False, "vision_in_dim": None}),
    "longcat": ("LongCatImage", {
        "hidden_size": 64, "num_heads": 4, "depth": 1, "depth_single_blocks": 1, "axes_dim": list(_AXES),
        "context_in_dim": 64, "vec_in_dim": None, "in_channels": 16, "out_channels": 16, "patch_size": 2,
        "mlp_ratio": 4.0, "theta": 10000, "qkv_bias": True, "guidance_embed": False, "txt_ids_dims": [1, 2]}),
}
"""Class of the host's `supported_models` and its `unet_config`, by the family's name."""


def more_conditions(family: str, found: Mapping[str, Any], stream: torch.Generator) -> dict[str, Any]:
    """What a family's text encoder gives beside text and pooled vector, or in another shape."""
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=stream)

    if family == "hidream":
        return {"conditioning_llama3": normal(1, 2, found["cond"].shape[1], 64)}
    if family == "hunyuan-dit":  # always of one length, with masks
        return {"cond": normal(1, 8, 64), "attention_mask": torch.ones(1, 8), "conditioning_mt5xl": normal(1, 12, 32),
                "attention_mask_mt5xl": torch.ones(1, 12)}
    if family in ("omnigen2", "boogu"):
        return {"attention_mask": torch.ones(found["cond"].shape[:2], dtype=torch.long)}
    return {}
