"""Where and on what a run is done. None of it changes the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Workplace:
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


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The arithmetic type for `precision` ("auto", "fp32", "bf16", "fp16") on `device`.

    "auto" is bfloat16 where a CUDA card computes in it (compute capability 8 and up), float16 on older ones and float32
    elsewhere: bfloat16 keeps float32's range, so it needs no loss scale.
    """
    import torch

    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision in named:
        return named[precision]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
