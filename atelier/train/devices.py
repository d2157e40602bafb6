"""Folders and device of a run, and the arithmetic type that suits a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RunPaths:
    """Folders and device of a run."""

    loras: Path
    """Finished LoRA files go here (ComfyUI's `models/loras`)."""
    runs: Path
    """One folder a run: state, checkpoints, samples, report."""
    cache: Path
    """Cached latents and embeddings."""
    device: str = "auto"
    """A torch device, or "auto": CUDA, else Apple's MPS, else the CPU."""


def pick_device(name: str) -> torch.device:
    """The torch device `name` stands for."""
    import torch

    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_dtype(precision: str, device: torch.device, *, sampling: bool = False) -> torch.dtype:
    """The arithmetic type for `precision` ("auto", "fp32", "bf16", "fp16") on `device`.

    "auto" is bfloat16 where the device computes in it (CUDA from compute capability 8 on, processors with AVX512-BF16
    or AMX), float16 on older CUDA cards and float32 elsewhere: bfloat16 keeps float32's range, so it needs no loss
    scale. Pictures drawn on a processor are worth the time that float32 takes there (`sampling`).
    """
    import torch

    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision in named:
        return named[precision]
    if device.type == "cpu":
        return torch.bfloat16 if _processor_has_bf16() and not sampling else torch.float32
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def _processor_has_bf16() -> bool:
    import torch

    # Releases before 2.8 or so do not tell; float32 is right everywhere.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
