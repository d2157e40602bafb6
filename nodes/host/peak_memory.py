"""Peak memory on the host's device, and the device, versions and options that pictures depend on."""

from __future__ import annotations

import json

import comfy.model_management as management
import comfyui_version
import torch
from comfy.cli_args import args

from .device import torch_device

_RELEVANT = ("fp8", "fp16", "fp32", "fp64", "bf16", "attention", "xformers", "vram", "gpu_only", "cpu_vae", "offload",
             "malloc", "triton", "fast", "deterministic", "channels_last", "cuda_graphs")
"""Parts of the names of those of the host's command-line options that change how it computes."""


def reset_peak_memory(*, alone: bool = False) -> None:
    """Restart the measurement of `peak_memory`.

    Args:
        alone: Unload other models first; otherwise their memory is included.
    """
    if torch_device().type != "cuda":
        return
    if alone:
        management.unload_all_models()
        management.soft_empty_cache()
    torch.cuda.reset_peak_memory_stats(torch_device())


def peak_memory() -> int | None:
    """Most bytes this program had on the device since `reset_peak_memory`; None where the device cannot be asked.

    Weights that the host keeps outside of PyTorch's memory (its DynamicVRAM) count with their present size.
    """
    if torch_device().type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(torch_device()) + _outside_pytorch()


def compute_environment() -> str:
    """Device, versions and options that may change a picture's last bits and its cost, as JSON."""
    device = torch_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    options = {option: sorted(map(str, value)) if isinstance(value, set) else str(value)
               for option, value in sorted(vars(args).items()) if any(part in option for part in _RELEVANT)}
    return json.dumps([name, torch.__version__, comfyui_version.__version__, options])


def _outside_pytorch() -> int:
    try:
        from comfy_aimdo import control
    except ImportError:  # a host without DynamicVRAM
        return 0
    return int(control.get_total_vram_usage())
