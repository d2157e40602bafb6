"""A digest of a model's files, by which results are known to be of the same model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import AtelierError

_BLOCK = 1 << 22
_PARTS = (".safetensors", ".json", ".txt", ".bin", ".pt")
_known: dict[tuple[str, int, int], str] = {}
"""Digests of files by path, size and time of change: each is read once."""


def model_digest(path: Path) -> str:
    """Hex digest of a file's bytes, or of the weights and configurations in a folder.

    Raises:
        AtelierError: it cannot be read.
    """
    try:
        files = sorted(file for file in path.iterdir() if file.suffix in _PARTS) if path.is_dir() else [path]
        whole = hashlib.sha256()
        for file in files:
            whole.update(f"{file.name if path.is_dir() else ''} {_digest(file)}\n".encode())
        return whole.hexdigest()
    except OSError as error:
        raise AtelierError(f"The score model {path} cannot be read ({error}).",
                           "Choose an existing model, or none.") from error


def _digest(file: Path) -> str:
    state = file.stat()
    key = (str(file), state.st_size, state.st_mtime_ns)
    if key not in _known:
        digest = hashlib.sha256()
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                digest.update(block)
        _known[key] = digest.hexdigest()
    return _known[key]
