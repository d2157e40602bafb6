"""UNets of the published shapes without weights, and LoRAs with random values on chosen layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from atelier.lora.weights import LoraModule

PUBLISHED: dict[str, dict[str, Any]] = {
    "sd1": {"cross_attention_dim": 768},
    "sd2": {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "sdxl": {
        "block_out_channels": (320, 640, 1280), "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": 2048,
        "transformer_layers_per_block": (1, 2, 10), "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816},
}
"""What the published models' configurations say beyond diffusers' defaults."""

TINY: dict[str, dict[str, Any]] = {
    "sd1": {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "cross_attention_dim": 16,
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")},
}
# SDXL's LoRA names count two residual blocks a level, as all published models have.
TINY["sdxl"] = {**TINY["sd1"], "layers_per_block": 2, "cross_attention_dim": 32, "use_linear_projection": True,
                "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 16 + 48}


def published_unet(family: str) -> UNet2DConditionModel:
    """The whole model, shapes only."""
    with torch.device("meta"):
        return UNet2DConditionModel(**PUBLISHED[family])


def tiny_models(family: str) -> dict[str, nn.Module]:
    """Models of a few thousand weights by component name: UNet and one ("sd1") or two ("sdxl") text encoders."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models: dict[str, nn.Module] = {"unet": UNet2DConditionModel(**TINY[family])}
        text = CLIPTextConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                              vocab_size=64, projection_dim=16, bos_token_id=1, eos_token_id=2, pad_token_id=0)
        models["text_encoder"] = CLIPTextModel(text)
        if family == "sdxl":
            models["text_encoder_2"] = CLIPTextModelWithProjection(text)
    return models


def layers(component: str, model: nn.Module) -> dict[str, nn.Module]:
    """Every linear and convolution layer by its name in a LoRA."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            if component.startswith("text_encoder") and path.startswith("encoder."):
                path = f"text_model.{path}"
            found[f"{component}.{path}"] = module
    return found


def random_lora(of: Mapping[str, nn.Module], *, rank: int = 4, alpha: float = 2.0, size: float = 0.02,
                dora: bool = False, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, LoraModule]:
    """An adapter for each layer, with ΔW about `size` times as large as a layer's usual weights."""
    stream = torch.Generator().manual_seed(seed)
    made = {}
    for name, layer in of.items():
        weight: torch.Tensor = layer.weight  # pyright: ignore[reportAssignmentType]
        down = torch.randn((rank, *weight.shape[1:]), generator=stream) / math.sqrt(weight[0].numel())
        up = torch.randn((weight.shape[0], rank, *[1] * (weight.dim() - 2)), generator=stream) * size
        magnitude = None
        if dora:
            noise = torch.rand(weight.shape[0], generator=stream)
            magnitude = weight.detach().float().flatten(1).norm(dim=1) * (1 + size * noise)
        made[name] = LoraModule(down.to(dtype), up.to(dtype), alpha, magnitude)
    return made
