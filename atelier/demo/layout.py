"""Write safetensors files whose bytes depend on their content alone, not on a library's version."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..progress import Progress


def write_fp16(path: Path, shapes: Mapping[str, tuple[int, ...]], make: Callable[[str], np.ndarray], title: str,
               progress: Progress) -> str:
    """Write one fp16 tensor after another, in the order of their names, and return the file's SHA-256.

    Args:
        path: Destination; use `atomic_file` around it.
        shapes: Shape of each tensor.
        make: Returns the tensor of a name; called in order, so that only one is in memory.
        title: Stored as the model's title.
        progress: Reports each tensor; may interrupt.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt", "modelspec.title": title}}
    offset = 0
    for name in sorted(shapes):
        size = 2 * math.prod(shapes[name])
        header[name] = {"dtype": "F16", "shape": list(shapes[name]), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    progress.phase("expanding", len(shapes))
    with path.open("wb") as file:
        for block in (len(text).to_bytes(8, "little"), text):
            file.write(block)
            digest.update(block)
        for done, name in enumerate(sorted(shapes), start=1):
            progress.check()
            block = make(name).astype("<f2").tobytes()
            file.write(block)
            digest.update(block)
            progress.advance(done)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """Hash a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
