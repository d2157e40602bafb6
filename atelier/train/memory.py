"""What a training step keeps in memory, counted before it starts.

The largest share is what the forward pass keeps for the backward pass. It is counted, not guessed: the UNet is run
once on torch's meta device (shapes without values, about a second) and every tensor that autograd would save is
added up.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..dataset.cache import EncodedSet
from .config import TrainConfig

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

HEADROOM = 1.15
"""Allowance over the count: allocator rounding, workspaces, the optimiser's temporaries."""


def needs_checkpointing(unet: UNet2DConditionModel, data: EncodedSet, config: TrainConfig, device: torch.device
                        ) -> bool:
    """Decide `gradient_checkpointing`: "auto" switches it on when the card's free memory does not hold a step.

    Devices that cannot tell their free memory (CPU, MPS) do without.
    """
    choice = config.options.gradient_checkpointing
    if choice != "auto" or device.type != "cuda":
        return choice == "on"
    free = torch.cuda.mem_get_info(device)[0]
    return activation_bytes(unet, data, config) * HEADROOM > free


def activation_bytes(unet: UNet2DConditionModel, data: EncodedSet, config: TrainConfig) -> int:
    """Bytes that autograd keeps between forward and backward for the largest batch, without checkpointing."""
    item = max(data.items, key=lambda item: item.height * item.width)
    batch, dtype = config.options.batch_size, unet.dtype
    ghost = _ghost(unet)
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[id(tensor.untyped_storage())] = tensor.numel() * tensor.element_size()
        alive.append(tensor)
        return tensor

    alive: list[Tensor] = []  # keeps ids from being used twice
    width = ghost.config["cross_attention_dim"]
    added: dict[str, Tensor] | None = None
    if ghost.config.get("addition_embed_type") == "text_time":
        pooled = ghost.config["projection_class_embeddings_input_dim"] - 6 * ghost.config["addition_time_embed_dim"]
        added = {"text_embeds": torch.zeros(batch, pooled, device="meta", dtype=dtype),
                 "time_ids": torch.zeros(batch, 6, device="meta", dtype=dtype)}
    latents = torch.zeros(batch, ghost.config["in_channels"], item.height, item.width, device="meta", dtype=dtype,
                          requires_grad=True)  # stands for the adapters: from the first layer on all is kept
    text = torch.zeros(batch, 77, width if isinstance(width, int) else width[0], device="meta", dtype=dtype)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        ghost(latents, torch.zeros(batch, device="meta"), text, added_cond_kwargs=added)
    weights = {id(p.untyped_storage()) for p in ghost.parameters()}
    return sum(size for key, size in kept.items() if key not in weights)


def _ghost(unet: UNet2DConditionModel) -> Any:
    """The same UNet without values, its attention keeping what the fused kernels keep."""
    with torch.device("meta"):
        ghost: Any = type(unet).from_config(copy.deepcopy(dict(unet.config)))
    ghost.to(unet.dtype)
    ghost.requires_grad_(False)
    processor: Any = _CountedAttention()
    ghost.set_attn_processor(processor)
    return ghost


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
