"""Folders and device of a run, and the arithmetic type that suits a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AtelierError

if TYPE_CHECKING:
    import torch


WRONG_IN_FP16 = ("1660", "1650", "1630", "T500", "T550", "T600", "MX550", "MX450", "CMP 30HX", "T2000",
                 "T1000", "T1200")
"""In the names of NVIDIA's cards of compute capability 7.5 without tensor cores (GTX 16xx and their kin), which give
NaN in float16."""


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
    """A torch device, or "auto": CUDA, else Intel's XPU, else Apple's MPS, else the CPU."""


def pick_device(name: str) -> torch.device:
    """The torch device that `name` stands for: "auto" (the best there is), or one such as "cuda:1", "mps" or "cpu".

    Raises:
        AtelierError: there is no such device on this machine, or it cannot compute pictures.
    """
    import torch

    if name == "auto":
        return torch.device(next((kind for kind in ("cuda", "xpu", "mps") if _count(kind)), "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _no_device(name) from error
    if device.type != "cpu" and (device.index or 0) >= _count(device.type):
        raise _no_device(name)
    return device


def _count(kind: str) -> int:
    """How many devices of a kind are there."""
    import torch

    if kind == "mps":
        return int(torch.backends.mps.is_available())
    backend: Any = getattr(torch, kind, None)  # "cuda", "xpu"; "meta" is none
    if not hasattr(backend, "is_available") or not hasattr(backend, "device_count"):
        return 0
    return backend.device_count() if backend.is_available() else 0


def _no_device(name: str) -> AtelierError:
    found = [f"{kind}:{index}" for kind in ("cuda", "xpu") for index in range(_count(kind))]
    return AtelierError(f"There is no device {name!r} on this machine.",
                        f"Choose one of: {', '.join(['auto', 'cpu', *found, *['mps'] * _count('mps')])}.")


def pick_dtype(precision: str, device: torch.device, *, sampling: bool = False) -> torch.dtype:
    """The arithmetic type for `precision` ("auto", "fp32", "bf16", "fp16") on `device`.

    "auto" is bfloat16 where the device computes in it (CUDA from compute capability 8 on, Intel's XPU, processors with
    AVX512-BF16 or AMX), float16 on older CUDA cards and float32 elsewhere, also on the cards that compute wrongly in
    float16: bfloat16 keeps float32's range, so it needs no loss scale. Pictures drawn on a processor are worth the
    time that float32 takes there (`sampling`).
    """
    import torch

    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision in named:
        return named[precision]
    if device.type == "cpu":
        return torch.bfloat16 if _processor_has_bf16() and not sampling else torch.float32
    if device.type == "xpu":
        return torch.bfloat16
    if device.type != "cuda":
        return torch.float32
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    broken = any(name in torch.cuda.get_device_name(device) for name in WRONG_IN_FP16)
    return torch.float32 if broken else torch.float16


def _processor_has_bf16() -> bool:
    import torch

    # Releases before 2.8 or so do not tell; float32 is right everywhere.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
