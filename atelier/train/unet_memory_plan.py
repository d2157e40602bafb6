"""The memory plan of diffusers' UNets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..dataset.cache import EncodedSet
from ..dataset.sizing import target_size
from ..dataset.types import TrainingSet
from .block_swap import BlockSwap
from .fitting_batch import fitting_batch
from .memory_plan import MemoryPlan, plan_memory
from .request.device import DeviceConfig
from .request.lora import LoraConfig
from .request.request import TrainRequest
from .unet_memory import count_unet, unet_blocks

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


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

    count = count_unet(unet, request.lora, dtype=dtype, batch=request.optimizer.batch_size, height=item.height,
                       width=item.width)
    return plan_memory(count, config, free)


def place_unet(unet: UNet2DConditionModel, plan: MemoryPlan, device: torch.device, lora: LoraConfig | None = None
               ) -> None:
    """Move a UNet to its device as planned.

    Args:
        unet: Changed in place.
        plan: Of its memory.
        device: Where it will compute.
        lora: The adapters that it will get; None: unknown.
    """
    if plan.swapped:
        found = unet_blocks(unet)
        swap = BlockSwap({path: found[path] for path in plan.swapped}, device)
        with swap.kept_away():
            nn.Module.to(unet, device)  # diffusers' own asks for the weights' type, which those away have not got
    else:
        nn.Module.to(unet, device)
    if plan.checkpointing:
        checkpoint_unet(unet, lora)


def graphs_obstacle(plan: MemoryPlan, config: DeviceConfig) -> str:
    """Why a step cannot be recorded as CUDA graphs beside this plan; "" where it can. "on" tries it on a card that may
    be too small."""
    if plan.swapped:
        return "blocks wait in main memory"
    if config.cuda_graphs == "auto" and not plan.has_room_for_graphs:
        return "the card has no room for what a step allocates twice"
    return ""


def checkpoint_unet(unet: UNet2DConditionModel, lora: LoraConfig | None = None) -> None:
    """Switch gradient checkpointing on. Where neither adapters nor UNet draw anything at random, the state of the
    random numbers is not kept for the second pass: a card is asked for it once a block, and waits."""
    draws = lora is None or lora.dropout or lora.rank_dropout or any(
        isinstance(module, nn.Dropout) and module.p > 0 for module in unet.modules())
    unet.enable_gradient_checkpointing(*([] if draws else [_without_random_state]))


def _without_random_state(module: nn.Module, *args: Any) -> Any:
    return checkpoint(module.__call__, *args, use_reentrant=False, preserve_rng_state=False)


def fitting_unet_batch(unet: Mapping[str, Any], data: TrainingSet, request: TrainRequest, dtype: torch.dtype,
                       memory: int | None) -> int:
    """As many pictures as fit into a card in one step of training a UNet; the largest picture decides.

    Args:
        unet: Its diffusers configuration.
        data: The training set, before it is encoded.
        request: What is trained. Text encoders are not counted.
        dtype: Of the frozen weights and the arithmetic.
        memory: Bytes of the card; None for a device that shares the machine's memory: one picture.
    """
    if memory is None:
        return 1
    sizes = (target_size(sample.size, data.resolution_of(sample)) for sample in data.samples)
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    count = partial(count_unet, unet, request.lora, dtype=dtype, height=height // 8, width=width // 8)
    return fitting_batch(lambda batch: count(batch=batch), request.device, memory, len(data.samples))


def whole_memory(device: torch.device) -> int | None:
    """Bytes of a CUDA, XPU or MPS device, used or not; None for others, as `free_memory`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return torch.xpu.get_device_properties(device).total_memory if device.type == "xpu" else None


def free_memory(device: torch.device) -> int | None:
    """Bytes free on a CUDA, XPU or MPS device; None for others, which do not tell or share the machine's memory.

    Apple's GPUs share it too, but take no more than the system recommends.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    if device.type == "xpu":
        try:
            return torch.xpu.mem_get_info(device)[0]
        except (RuntimeError, AttributeError):  # older drivers and releases know the whole alone
            return torch.xpu.get_device_properties(device).total_memory - torch.xpu.memory_reserved(device)
    return None
