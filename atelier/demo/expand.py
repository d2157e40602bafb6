"""Expand the stored asset into a full Stable Diffusion 1.x checkpoint, bit for bit the same on every machine.

Only integer arithmetic, elementwise IEEE operations and copies are used, so nothing depends on the processor, the
number of threads or a library's version.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import AtelierError
from ..files import atomic_file
from ..progress import Progress
from . import asset, widen
from .layout import sha256, write_fp16
from .seeded import text_encoder_shapes, text_encoder_tensor

ASSET = Path(__file__).with_name("model.safetensors")
DIGEST = ASSET.with_suffix(".sha256")
"""Text file with the SHA-256 of the *expanded* checkpoint."""
FILE_NAME = "atelier-demo.safetensors"
"""Default file name of the checkpoint."""
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


def expand(dst: Path, progress: Progress | None = None) -> Path:
    """Write the demo checkpoint (fp16, LDM keys, about half a gigabyte) to `dst`, unless `dst` is it already.

    Raises:
        AtelierError: the asset is damaged, the disk is full, or the result's hash is not the recorded one.
        Interrupted: `progress` asked to stop; no file is left.
    """
    expected = DIGEST.read_text(encoding="ascii").strip()
    if dst.is_file() and sha256(dst) == expected:
        return dst
    with atomic_file(dst) as part:
        digest = write(part, progress or Progress())
        if digest != expected:
            raise AtelierError(f"The expanded demo model has hash {digest[:12]}… instead of {expected[:12]}….",
                               "Install the pack again; if that does not help, report processor and NumPy version.")
    return dst


def write(path: Path, progress: Progress) -> str:
    """Write the expanded checkpoint to `path` and return its SHA-256, without comparing it to anything."""
    trained = asset.read(ASSET)
    seeded = {TEXT + name: shape for name, shape in text_encoder_shapes().items()}

    def make(name: str) -> np.ndarray:
        if name in seeded:
            return text_encoder_tensor(name.removeprefix(TEXT), seeded[name])
        return _widened(name, trained[name])

    shapes = {name: _widened(name, weight).shape for name, weight in trained.items()} | seeded
    return write_fp16(path, shapes, make, "Atelier demo model", progress)


def _widened(name: str, weight: np.ndarray) -> np.ndarray:
    if name.startswith(UNET):
        return widen.double_unet(name.removeprefix(UNET), weight)
    return widen.pad_vae(name.removeprefix(VAE), weight)
