"""Expand the stored asset into a full Stable Diffusion 1.x checkpoint, bit for bit the same on every machine.

Only integer arithmetic, elementwise IEEE operations and copies are used, and the file's layout is written here, so
nothing depends on the processor, the number of threads or a library's version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import AtelierError
from ..files import whole_file
from ..progress import Monitor
from . import asset, widen
from .seeded import text_encoder_shapes, text_encoder_tensor

ASSET = Path(__file__).with_name("model.safetensors")
DIGEST = ASSET.with_suffix(".sha256")
"""Text file with the SHA-256 of the *expanded* checkpoint."""
FILE_NAME = "atelier-demo.safetensors"
"""What the checkpoint is called where nothing else is asked for."""
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."


def expand(dst: Path, monitor: Monitor | None = None) -> Path:
    """Write the demo checkpoint (fp16, LDM keys, about 500 MB) to `dst`, or leave it where it already stands whole.

    Raises:
        AtelierError: the asset is damaged, the disk is full, or the result is not the one the repository vouches for.
        Interrupted: `monitor` asked to stop; no file is left.
    """
    monitor = monitor or Monitor()
    expected = DIGEST.read_text(encoding="ascii").strip()
    if dst.is_file() and _digest(dst) == expected:
        return dst
    with whole_file(dst) as part:
        digest = write(part, monitor)
        if digest != expected:
            raise AtelierError(f"The expanded demo model has hash {digest[:12]}… instead of {expected[:12]}….",
                               "Install the pack again; if that does not help, report processor and NumPy version.")
    return dst


def write(path: Path, monitor: Monitor) -> str:
    """Write the expanded checkpoint to `path` and return its SHA-256, without comparing it to anything."""
    trained = asset.read(ASSET)
    shapes = {name: _wide(name, weight).shape for name, weight in trained.items()}
    shapes |= {TEXT + name: shape for name, shape in text_encoder_shapes().items()}
    header, offset = {"__metadata__": {"format": "pt", "modelspec.title": "Atelier demo model"}}, 0
    for name in sorted(shapes):
        size = 2 * int(np.prod(shapes[name]))
        header[name] = {"dtype": "F16", "shape": list(shapes[name]), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    monitor.phase("expanding", len(shapes))
    with path.open("wb") as file:
        for i, block in enumerate(_blocks(len(text).to_bytes(8, "little") + text, sorted(shapes), trained)):
            monitor.check()
            file.write(block)
            digest.update(block)
            monitor.advance(i)
    return digest.hexdigest()


def _blocks(head: bytes, names: list[str], trained: dict[str, np.ndarray]) -> Iterator[bytes]:
    yield head
    text_shapes = text_encoder_shapes()
    for name in names:
        if name.startswith(TEXT):
            own = name.removeprefix(TEXT)
            tensor = text_encoder_tensor(own, text_shapes[own])
        else:
            tensor = _wide(name, trained[name]).astype(np.float16)
        yield tensor.astype("<f2", copy=False).tobytes()


def _wide(name: str, weight: np.ndarray) -> np.ndarray:
    if name.startswith(UNET):
        return widen.double_unet(name.removeprefix(UNET), weight)
    return widen.pad_vae(name.removeprefix(VAE), weight)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
