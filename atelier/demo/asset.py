"""Store trained weights compactly: int8 with a scale per output channel, in a safetensors file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import AtelierError

SCALE = ".scale"


def quantise(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round fp32 `[out, ...]` to int8 and fp32 scales `[out]`; row i is about `int8[i] * scale[i]`."""
    flat = weight.reshape(len(weight), -1)
    scale = np.maximum(np.abs(flat).max(axis=1), 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(flat / scale[:, None]).astype(np.int8).reshape(weight.shape), scale


def read(path: Path) -> dict[str, np.ndarray]:
    """Read an asset; int8 tensors come back as fp32 times their scale, all others as fp32.

    Raises:
        AtelierError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise AtelierError(f"{path.name}, a part of the demo model, cannot be read ({error}).",
                           "Install the pack again.") from error
    weights = {}
    for name, tensor in stored.items():
        if name.endswith(SCALE):
            continue
        weights[name] = tensor.astype(np.float32)
        if tensor.dtype == np.int8:
            weights[name] *= stored[name + SCALE].reshape(-1, *[1] * (tensor.ndim - 1))
    return weights


def write(path: Path, weights: dict[str, np.ndarray]) -> None:
    """Store `weights`: UNet matrices as int8 with scales, everything else as fp16."""
    from safetensors.numpy import save_file
    stored = {}
    for name, weight in weights.items():
        if name.startswith("model.diffusion_model.") and weight.ndim > 1:
            stored[name], stored[name + SCALE] = quantise(weight.astype(np.float32))
        else:
            stored[name] = weight.astype(np.float16)
    save_file(stored, path)
