"""Tensors on disk by name, whatever file format stores them.

A `Source` lists name, dtype and shape of each tensor and reads a tensor, or some of its rows, on request only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .content import check_content
from .entry import Entry, FileRange
from .header import read_header
from .pickled import PICKLES, read_pickle


@dataclass(frozen=True)
class Source:
    """Named tensors on disk and their file's metadata."""

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The safetensors metadata; of a folder, empty."""

    @property
    def files(self) -> set[Path]:
        """The files that hold its tensors. A pickle's tensors do not know their file: if a folder holds any, all of
        its files are listed."""
        files = {entry.source.path for entry in self.entries.values() if isinstance(entry.source, FileRange)}
        if all(isinstance(entry.source, FileRange) for entry in self.entries.values()):
            return files
        return {file for file in self.path.rglob("*") if file.is_file()} if self.path.is_dir() else {self.path}


def open_file(path: Path) -> Source:
    """A single weight file: `.safetensors`, or a pickle (`.ckpt`, `.pt`, `.pth`, `.bin`) that holds nothing but
    weights.

    Raises:
        AtelierError: the file cannot be read, is not a weight file, or is of another kind than its ending says.
    """
    check_content(path)
    if path.suffix.lower() in PICKLES:
        return Source(path, read_pickle(path))
    header = read_header(path)
    entries = {name: Entry(info.dtype, info.shape, FileRange(path, info.begin, info.end))
               for name, info in header.tensors.items()}
    return Source(path, entries, header.metadata)
