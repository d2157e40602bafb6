"""What drawing costs on the host's device, and what it is computed with."""

from __future__ import annotations

import json

import comfy.model_management as management
import comfyui_version
import torch
from comfy.cli_args import args

from . import host

_COUNTED = ("fp8", "fp16", "fp32", "fp64", "bf16", "attention", "xformers", "vram", "gpu_only", "cpu_vae", "offload",
            "malloc", "triton", "fast", "deterministic", "channels_last", "cuda_graphs")
"""Parts of the names of options the host is started with that change how it computes."""


def reset_peak_memory(*, alone: bool = False) -> None:
    """Begin to measure `peak_memory` anew.

    Args:
        alone: Other models leave the device first; without, what they hold is measured too.
    """
    if host.device().type != "cuda":
        return
    if alone:
        management.unload_all_models()
        management.soft_empty_cache()
    torch.cuda.reset_peak_memory_stats(host.device())


def peak_memory() -> int | None:
    """Most bytes this program had on the device since `reset_peak_memory`; None where the device does not tell.

    Weights that the host keeps outside of PyTorch's memory (its DynamicVRAM) count as they are now.
    """
    if host.device().type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(host.device()) + _outside_pytorch()


def computed_with() -> str:
    """Device, versions and options that may change a picture's last bits and its cost."""
    device = host.device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    options = {option: sorted(map(str, value)) if isinstance(value, set) else str(value)
               for option, value in sorted(vars(args).items()) if any(part in option for part in _COUNTED)}
    return json.dumps([name, torch.__version__, comfyui_version.__version__, options])


def _outside_pytorch() -> int:
    try:
        from comfy_aimdo import control
    except ImportError:  # a host without DynamicVRAM
        return 0
    return int(control.get_total_vram_usage())
