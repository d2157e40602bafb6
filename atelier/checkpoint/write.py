"""Write a safetensors file from tensors in other files: a new header, then their bytes, copied range by range.

The kernel moves the bytes (`os.copy_file_range`) where it can, so that a checkpoint of any size passes through with
no tensor in memory; elsewhere a plain loop does. Written to the rules of the format: no holes, and offsets that keep
numbers aligned.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AtelierError
from .entry import Entry, FileRange
from .header import ITEM_SIZES, SAFETENSORS_NAMES

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 1 << 25
"""Bytes between two reports of progress, and so between two chances to interrupt."""
BLOCK = 1 << 20
"""Bytes in memory at a time where the kernel does not copy."""


@dataclass(frozen=True)
class Output:
    """One tensor to write. Its bytes are those of its parts, one after the other."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return sum(part.size for part in self.parts)


def write_safetensors(path: Path, outputs: Iterable[Output], metadata: Mapping[str, str],
                      on_bytes: Callable[[int], None]) -> int:
    """Write the file and return its size. The caller makes the write atomic (`atelier.files`).

    Args:
        path: The file to write.
        outputs: The tensors. They are laid out in the order of their sources, so that neighbours are copied in one go.
        metadata: The header's free-form texts.
        on_bytes: Called with the number of bytes written since the last call, at least once for every 32 MB.
    """
    ordered = sorted(outputs, key=_file_order)
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for output in ordered:
        begin, end = end, end + output.size
        header[output.name] = {"dtype": output.dtype, "shape": list(output.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with ExitStack() as stack:
        target = stack.enter_context(path.open("wb", buffering=0))
        _write(target, len(text).to_bytes(8, "little") + text)
        files: dict[Path, FileIO] = {}
        for part in _joined(entry for output in ordered for entry in output.parts if entry.size):
            if not isinstance(part, FileRange):
                data = part.read_bytes()
                _write(target, data)
                on_bytes(len(data))
                continue
            if part.path not in files:
                files[part.path] = stack.enter_context(part.path.open("rb", buffering=0))
            _copy(files[part.path], target, part, on_bytes)
    return 8 + len(text) + end


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors that are in memory. They are moved to the CPU one at a time, so that no second copy of all exists.

    The safetensors package does the same, except that a full disk raises an error that is no `OSError`.

    Args:
        path: The file to write. The caller makes the write atomic (`atelier.files`).
        tensors: By name; on any device, of any layout, and they may share memory.
        metadata: The header's free-form texts.
    """
    outputs = []
    for name, tensor in tensors.items():
        dtype, shape = SAFETENSORS_NAMES[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape)
        outputs.append(Output(name, dtype, shape, (Entry(dtype, shape, tensor.detach().cpu),)))
    write_safetensors(path, outputs, metadata, lambda count: None)


def _file_order(output: Output) -> tuple[int, str, int]:
    """Sort key: wide dtypes first, which keeps every tensor aligned to its item size; then the order in the sources."""
    source = output.parts[0].source
    file, begin = (str(source.path), source.begin) if isinstance(source, FileRange) else ("", 0)
    return -ITEM_SIZES[output.dtype], file, begin


def _joined(entries: Iterable[Entry]) -> Iterator[FileRange | Entry]:
    """The entries in order, with adjacent ranges of a file joined."""
    open_range: FileRange | None = None
    for entry in entries:
        source = entry.source if isinstance(entry.source, FileRange) else None
        if source and open_range and (source.path, source.begin) == (open_range.path, open_range.end):
            open_range = FileRange(open_range.path, open_range.begin, source.end)
            continue
        if open_range:
            yield open_range
        open_range = source
        if source is None:
            yield entry
    if open_range:
        yield open_range


_UNSUPPORTED = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}


def _copy(source: FileIO, target: FileIO, part: FileRange, on_bytes: Callable[[int], None]) -> None:
    at, in_kernel = part.begin, hasattr(os, "copy_file_range")
    buffer = memoryview(bytearray(0))
    while at < part.end:
        wanted = min(CHUNK, part.end - at)
        if in_kernel:
            try:
                got = os.copy_file_range(source.fileno(), target.fileno(), wanted, at)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                in_kernel = False
                continue
        else:
            buffer = buffer or memoryview(bytearray(min(BLOCK, part.end - part.begin)))
            source.seek(at)
            got = source.readinto(buffer[:min(wanted, len(buffer))]) or 0
            _write(target, buffer[:got])
        if not got:
            raise AtelierError(f"{part.path} became shorter while it was read.", "Run again when it is complete.")
        at += got
        on_bytes(got)


def _write(file: FileIO, data: bytes | memoryview) -> None:
    """Write all of it; an unbuffered file may take less at once."""
    view = memoryview(data)
    while view:
        view = view[file.write(view):]
