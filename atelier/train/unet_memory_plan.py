"""The memory plan of diffusers' UNets."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..dataset.cache import EncodedSet
from .block_swap import BlockSwap
from .memory import StepMemory, step_memory
from .memory_plan import MemoryPlan, plan_memory
from .request.request import TrainRequest
from .step_count import StepCount

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


def unet_blocks(unet: nn.Module) -> dict[str, nn.Module]:
    """What diffusers' gradient checkpointing forgets and computes again: residual and transformer blocks, by path."""
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D

    return {path: module for path, module in unet.named_modules()
            if isinstance(module, BasicTransformerBlock | ResnetBlock2D)}


def plan_unet(unet: Mapping[str, Any], data: EncodedSet, request: TrainRequest, dtype: torch.dtype, free: int | None
              ) -> MemoryPlan:
    """Choose checkpointing and swapped blocks for a UNet; the largest picture decides.

    Args:
        unet: Its diffusers configuration.
        data: The encoded training set.
        request: What is trained.
        dtype: Of the frozen weights and the arithmetic.
        free: Bytes free on the device before the UNet is there; None for one that shares the machine's memory, which
            needs no plan.
    """
    config = request.device
    if free is None and config.blocks_to_swap <= 0:
        return plan_memory(None, config, None)
    item = max(data.items, key=lambda item: item.height * item.width)

    def counted(checkpointing: bool) -> StepMemory:
        return step_memory(unet, request.lora, dtype=dtype, batch=request.optimizer.batch_size,
                           height=item.height, width=item.width, checkpointing=checkpointing)

    plain, redone = counted(False), counted(True)
    return plan_memory(StepCount(weights=plain.weights, blocks=_sizes(unet, dtype), adapters=plain.adapters,
                                 kept=plain.activations, kept_with_checkpointing=redone.activations), config, free)


def place_unet(unet: UNet2DConditionModel, plan: MemoryPlan, device: torch.device) -> None:
    """Move a UNet to its device as planned."""
    if plan.swapped:
        found = unet_blocks(unet)
        swap = BlockSwap({path: found[path] for path in plan.swapped}, device)
        with swap.kept_away():
            nn.Module.to(unet, device)  # diffusers' own asks for the weights' type, which those away have not got
    else:
        nn.Module.to(unet, device)
    if plan.checkpointing:
        unet.enable_gradient_checkpointing()


def _sizes(config: Mapping[str, Any], dtype: torch.dtype) -> dict[str, int]:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(copy.deepcopy(dict(config)))
    return {path: sum(parameter.numel() for parameter in block.parameters()) * dtype.itemsize
            for path, block in unet_blocks(unet).items()}


def free_memory(device: torch.device) -> int | None:
    """Bytes free on a CUDA device; None for others, which do not tell or share the machine's memory."""
    found: Any = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    return found
