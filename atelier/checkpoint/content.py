"""What a weight file is by its first bytes, whatever its name says."""

from __future__ import annotations

from pathlib import Path

from ..errors import AtelierError
from .pickled import PICKLES

_LFS = b"version https://git-lfs.github.com/spec/"
_PICKLED = (b"PK\x03\x04", b"\x80\x02")
"""How PyTorch's files begin: as a zip archive, or before PyTorch 1.6 as a bare pickle."""


def is_lfs_pointer(path: Path) -> bool:
    """Whether the file only says where Git keeps the true one: what a clone without Git LFS holds."""
    return _start(path).startswith(_LFS)


def check_content(path: Path) -> None:
    """Refuse a file that is of another kind than its ending says; a missing file passes.

    Raises:
        AtelierError: it is a pointer of Git LFS, or bears the other format's ending.
    """
    start, pickled = _start(path), path.suffix.lower() in PICKLES
    if start.startswith(_LFS):
        raise AtelierError(f"{path} is a pointer of Git LFS and holds no weights.",
                           'Run "git lfs pull" in its folder, or download the file itself.')
    if pickled and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        raise AtelierError(f"{path} is a safetensors file with another ending.", "Rename it to end in .safetensors.")
    if not pickled and start.startswith(_PICKLED):
        raise AtelierError(f"{path} is a PyTorch file with another ending.", "Rename it to end in .ckpt.")


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(_LFS))
    except OSError:
        return b""  # whoever reads the file says so
