"""The cache on disk: rows of tensors under content keys, in pack files. See docs/decisions/0003."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from ..checkpoint.header import TensorInfo, read_header
from ..checkpoint.write import write_tensors
from ..errors import AtelierError
from ..files import atomic_file

_log = logging.getLogger("atelier")

Row = dict[str, Tensor]
"""Named tensors of one key, such as mean and std."""


class PackStore:
    """A folder of `.safetensors` packs; each holds the rows of one `add`, its tensors named `<key>/<name>`.

    Opening reads the headers only. Packs are never modified: each `add` writes a new file atomically, so that a killed
    run keeps every row it had added. A damaged pack counts as absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._packs: dict[str, Path] = {}
        self._infos: dict[str, dict[str, TensorInfo]] = {}
        self._held: dict[str, Row] = {}
        for path in sorted(folder.glob("*.safetensors")):
            try:
                self._index(path)
            except AtelierError as error:
                _log.warning("A part of the cache is damaged and will be made again: %s", error.what)

    def __contains__(self, key: str) -> bool:
        return key in self._packs

    def add(self, rows: Mapping[str, Row]) -> None:
        """Write `rows`, by key, as one pack.

        Raises:
            AtelierError: the disk is full or the folder cannot be written.
        """
        name = hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()[:32]
        path = self.folder / f"{name}.safetensors"
        tensors = {f"{key}/{part}": tensor for key, row in rows.items() for part, tensor in row.items()}
        with atomic_file(path) as unfinished:
            write_tensors(unfinished, tensors, {})
        self._index(path)

    def shape(self, key: str, part: str) -> tuple[int, ...] | None:
        """Shape of one tensor of a row, from the header; None where the row has no such tensor."""
        info = self._infos[key].get(part)
        return None if info is None else info.shape

    def read(self, key: str) -> Row:
        """The row under `key`, on the CPU.

        Raises:
            KeyError: there is none.
        """
        if key in self._held:
            return self._held[key]
        return self._read(self._packs[key], (key,))[key]

    def size(self, keys: Collection[str]) -> int:
        """Bytes of the rows under `keys`."""
        return sum(info.end - info.begin for key in keys for info in self._infos[key].values())

    def hold(self, keys: Iterable[str]) -> None:
        """Read the rows under `keys` into memory and keep them there."""
        by_pack: dict[Path, list[str]] = {}
        for key in keys:
            by_pack.setdefault(self._packs[key], []).append(key)
        for path, together in by_pack.items():
            self._held |= self._read(path, together)

    def _read(self, path: Path, keys: Iterable[str]) -> dict[str, Row]:
        # Clone the tensors, so that the memory map closes here: an open map would lock the file on Windows.
        with safe_open(path, framework="pt") as file:
            return {key: {part: file.get_tensor(f"{key}/{part}").clone() for part in self._infos[key]}
                    for key in keys}

    def _index(self, path: Path) -> None:
        for name, info in read_header(path).tensors.items():
            key, _, part = name.rpartition("/")
            if self._packs.get(key) != path:
                self._packs[key], self._infos[key] = path, {}
            self._infos[key][part] = info
