"""The memory of a training step of diffusers' UNets, counted before training starts (see `step_count`)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .adapters import put_adapters
from .request.lora import LoraConfig, layer_pattern
from .step_count import Ghost, StepCount, count_step


def unet_blocks(unet: nn.Module) -> dict[str, nn.Module]:
    """What diffusers' gradient checkpointing forgets and computes again: residual and transformer blocks, by path."""
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D

    return {path: module for path, module in unet.named_modules()
            if isinstance(module, BasicTransformerBlock | ResnetBlock2D)}


def count_unet(unet: Mapping[str, Any], lora: LoraConfig, *, dtype: torch.dtype, batch: int, height: int, width: int
               ) -> StepCount:
    """Count what one step of training a LoRA on a UNet keeps. Text encoders and VAE are not among it.

    Args:
        unet: The UNet's diffusers configuration.
        lora: Rank, kind and layers of the adapters.
        dtype: Of the frozen weights and the arithmetic.
        batch: Pictures per forward pass.
        height: Of the latents.
        width: Of the latents.
    """
    original = _without_values(unet, dtype)
    ghost = Ghost(original, lambda module: put_adapters("unet", module, lora, layer_pattern("unet", lora), dtype))

    def forward() -> object:
        return ghost.module(*_inputs(original.config, dtype, batch, height, width))

    return count_step(ghost, original, list(unet_blocks(original)), forward, dtype)


def _without_values(config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """The UNet on the meta device, its attention keeping what the fused kernels keep."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(copy.deepcopy(dict(config)))
    nn.Module.to(unet, dtype)  # diffusers' own warns of casting weights, of which there are none
    processor: Any = _CountedAttention()
    unet.set_attn_processor(processor)
    return unet


def _inputs(config: Any, dtype: torch.dtype, batch: int, height: int, width: int) -> tuple[Any, ...]:
    """What the UNet's forward takes by position, up to the added conditioning."""
    def empty(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    added: dict[str, Tensor] | None = None
    if config.get("addition_embed_type") == "text_time":
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        added = {"text_embeds": empty(batch, pooled), "time_ids": empty(batch, 6)}
    context = config["cross_attention_dim"]
    text = empty(batch, 77, context if isinstance(context, int) else context[0])
    latents, times = empty(batch, config["in_channels"], height, width), torch.zeros(batch)
    return latents, times, text, None, None, None, None, added


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return grads * 3


class _CountedAttention(nn.Module):
    """Attention that saves query, key, value and result, as memory-efficient kernels do, and computes nothing."""

    def forward(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: object
                ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        fused: Any = _FusedAttention.apply(query, key, value)
        return attn.to_out[0](fused)
