"""The memory of a training step, counted before training starts.

The largest share is what the forward pass keeps for the backward pass. It is counted, not guessed: the UNet with its
adapters is run once on torch's meta device (shapes without values, a few seconds) and every tensor that autograd would
save is added up.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .adapters import put_adapters
from .request.lora import LoraConfig, layer_pattern

HEADROOM = 1.15
"""Allowance over the count: allocator rounding, workspaces, the optimiser's temporaries."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes on the device during a training step of the UNet. Text encoders and VAE are not among them."""

    weights: int
    """The frozen weights."""
    adapters: int
    """The adapters with their gradients, and float32 copies of both and the two moments of AdamW."""
    activations: int
    """What autograd keeps between forward and backward; with checkpointing, and while the largest block is redone."""

    @property
    def total(self) -> int:
        """All of it, with `HEADROOM` on what is allocated anew in each step."""
        return int(self.weights + self.adapters + self.activations * HEADROOM)


def step_memory(unet: Mapping[str, Any], lora: LoraConfig, *, dtype: torch.dtype, batch: int, height: int, width: int,
                checkpointing: bool = False) -> StepMemory:
    """Count what one step of training a LoRA on a UNet keeps.

    Args:
        unet: The UNet's diffusers configuration.
        lora: Rank, kind and layers of the adapters.
        dtype: Of the frozen weights and the arithmetic.
        batch: Pictures per forward pass.
        height: Of the latents.
        width: Of the latents.
        checkpointing: Each residual block and each transformer block is forgotten and computed again for its gradients
            (Chen et al. 2016, https://arxiv.org/abs/1604.06174), as diffusers does it.
    """
    ghost = _ghost(unet, dtype)
    weights = sum(p.numel() for p in ghost.parameters())
    trained = sum(p.numel() for _, p in put_adapters("unet", ghost, lora, layer_pattern("unet", lora), dtype))
    outer, inner = _Kept(ghost), [0]

    def redone(block: nn.Module, *given: Any) -> Any:
        for tensor in given:
            if isinstance(tensor, Tensor):
                outer.add(tensor)
        kept = _Kept(ghost)
        with torch.autograd.graph.saved_tensors_hooks(kept.add, _same):
            out = block(*given)
        inner.append(kept.bytes)
        return out

    if checkpointing:
        ghost.enable_gradient_checkpointing(redone)
    ghost.train()
    with torch.autograd.graph.saved_tensors_hooks(outer.add, _same):
        ghost(*_inputs(ghost.config, dtype, batch, height, width))
    # Adapters and their gradients in the arithmetic's type, unless the masters serve; masters, gradients, two moments.
    doubled = 0 if dtype == torch.float32 else 2 * dtype.itemsize
    return StepMemory(weights * dtype.itemsize, trained * (doubled + 4 * 4), outer.bytes + max(inner))


class _Kept:
    """Adds up the storages that autograd saves, each once; the model's own parameters do not count."""

    def __init__(self, model: nn.Module) -> None:
        self._own = {p.untyped_storage()._cdata for p in model.parameters()}
        self._tensors: dict[int, Tensor] = {}  # kept alive, so that no address is used twice

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in self._own:
            self._tensors[storage] = tensor
        return tensor

    @property
    def bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self._tensors.values())


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _ghost(config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """The UNet without values, its attention keeping what the fused kernels keep."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        ghost: Any = UNet2DConditionModel.from_config(copy.deepcopy(dict(config)))
    nn.Module.to(ghost, dtype)  # diffusers' own warns of casting weights, of which there are none
    processor: Any = _CountedAttention()
    ghost.set_attn_processor(processor)
    return ghost


def _inputs(config: Any, dtype: torch.dtype, batch: int, height: int, width: int) -> tuple[Any, ...]:
    """What the UNet's forward takes by position, up to the added conditioning."""
    def empty(*shape: int) -> Tensor:
        return torch.zeros(shape, device="meta", dtype=dtype)

    added: dict[str, Tensor] | None = None
    if config.get("addition_embed_type") == "text_time":
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        added = {"text_embeds": empty(batch, pooled), "time_ids": empty(batch, 6)}
    context = config["cross_attention_dim"]
    text = empty(batch, 77, context if isinstance(context, int) else context[0])
    latents, times = empty(batch, config["in_channels"], height, width), torch.zeros(batch, device="meta")
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
