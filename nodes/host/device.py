"""The host's device: its memory, and exclusive use of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management as management
import torch

_COMPUTE_RESERVE = 512 * 1024 ** 2
"""Bytes kept free beside a model's weights for its activations."""


def torch_device() -> torch.device:
    """The device the host computes on."""
    return management.get_torch_device()


def memory_usage() -> tuple[int, int]:
    """(used, total) bytes of the device's memory; used counts all programs."""
    total = int(management.get_total_memory(torch_device()))
    return total - int(management.get_free_memory(torch_device())), total


@contextmanager
def on_device(module: torch.nn.Module) -> Iterator[None]:
    """Keep `module` on the host's device meanwhile: in float16 on a GPU that handles it well, else in float32.

    Other models are unloaded as needed. The whole module is moved: unlike the host's own layers, those of transformers
    cannot compute with weights that are on another device.
    """
    half = not management.is_device_cpu(torch_device()) and management.should_use_fp16(torch_device())
    dtype = torch.float16 if half else torch.float32
    size = sum(parameter.numel() for parameter in module.parameters()) * dtype.itemsize
    management.free_memory(size * 1.2 + _COMPUTE_RESERVE, torch_device())
    try:
        module.to(torch_device(), dtype)
        yield
    finally:
        module.to("cpu")
        _free_memory()


@contextmanager
def exclusive_device() -> Iterator[None]:
    """Unload all models and enable gradients; at the end, give the memory back to the host.

    The host runs a prompt in inference mode, and tensors created in it can never take part in training. So models must
    be loaded inside this block.
    """
    management.unload_all_models()
    _free_memory()
    try:
        with torch.inference_mode(False):
            yield
    finally:
        _free_memory()


def _free_memory() -> None:
    gc.collect()
    management.soft_empty_cache()
