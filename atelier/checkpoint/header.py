"""The safetensors header, read and checked without touching a tensor.

A file is an 8-byte little-endian length N, N bytes of JSON that give each tensor's dtype, shape and byte range, then
the tensors' bytes (https://github.com/huggingface/safetensors, "Format"). Files come from strangers, so nothing in
the header is believed: lengths, ranges, shapes and names are checked against each other and against the size of the
file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AtelierError
from ..json_files import parse_json
from ..limits import Limits, check_characters

HEADER_LIMIT = 100_000_000
"""Longest header in bytes, the same limit as the reference implementation's."""
MOST_TENSORS = 100_000
"""Of one file. Checkpoints with the states of their optimiser have a tenth."""
MOST_DIMENSIONS = 64
"""Of one tensor, as in torch."""
_LIMITS = Limits(size=HEADER_LIMIT, depth=8, digits=19, count=10_000_000)
"""A byte's place in a file has 19 digits at most."""

ITEM_SIZES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}
"""Bytes of one number of each dtype."""

TORCH_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
    "U16": "uint16", "U32": "uint32", "U64": "uint64", "BOOL": "bool",
}
"""The same dtypes in torch's words."""

SAFETENSORS_NAMES = {torch: name for name, torch in TORCH_NAMES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """One entry of the header. `begin` and `end` are offsets from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The tensors of a file by name, in the order of their bytes, and its free-form metadata."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Read and check the header of a `.safetensors` file.

    Raises:
        AtelierError: the file is missing, is no safetensors file, is cut short, or its header contradicts itself.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or not 2 <= length <= HEADER_LIMIT or length > size - 8:
                raise _refusal(path, start + file.read(32), size, length)
            text = file.read(length)
    except OSError as error:
        raise AtelierError(f"{path} cannot be read: {error.strerror or error}.", "Choose an existing file.") from error
    return _parse(text, path, data=8 + length, size=size)


def _refusal(path: Path, start: bytes, size: int, length: int) -> AtelierError:
    """The most helpful explanation of a beginning that is no safetensors header."""
    if start.startswith(b"version https://git-lfs"):
        return AtelierError(f"{path} is a Git LFS pointer, not the model itself.", "Download the real file.")
    if start.startswith(b"PK") or start.startswith(b"\x80\x02"):
        return AtelierError(f"{path} is a pickled PyTorch file under a wrong name.", "Rename it to end in .ckpt.")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"{\"error")):
        return AtelierError(f"{path} is a web page, not a model: the download failed.", "Download it again.")
    if 2 <= length <= HEADER_LIMIT and start[8:9] == b"{":
        return AtelierError(f"{path} is cut short: its header alone needs {length} bytes, the file has {size}.",
                            "Download or copy it again.")
    return AtelierError(f"{path} is not a safetensors file.", "Choose a .safetensors or .ckpt checkpoint.")


def _parse(text: bytes, path: Path, data: int, size: int) -> Header:
    def damaged(why: str) -> AtelierError:
        return AtelierError(f"{path} has a damaged header: {why}.", "Download or copy the file again.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise damaged("a name appears twice")
        return found

    try:
        raw = parse_json(text, _LIMITS, pairs=unique)
    except UnicodeDecodeError as error:
        raise damaged("it is not UTF-8 text") from error
    except ValueError as error:
        raise damaged(f"it is not valid JSON ({error})") from error
    if not isinstance(raw, dict):
        raise damaged("it is not a JSON object")
    metadata = raw.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise damaged("its metadata is not a table of texts")
    if len(raw) > MOST_TENSORS:
        raise damaged(f"it lists {len(raw)} tensors, more than {MOST_TENSORS}")
    try:
        check_characters("".join([*raw, *metadata, *metadata.values()]))
    except ValueError as error:
        raise damaged(str(error)) from error
    tensors: dict[str, TensorInfo] = {}
    for name, entry in raw.items():
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        except (TypeError, KeyError, ValueError) as error:
            raise damaged(f"the entry of {_short(name)} is incomplete") from error
        if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
            raise AtelierError(f"{path} holds {_short(name)} with dtype {_short(str(dtype))}, which is not supported.",
                               "Convert the file to float16, bfloat16 or float32 with the program that wrote it.")
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in [*shape, begin, end]):
            raise damaged(f"the shape or range of {_short(name)} is not made of whole numbers")
        if len(shape) > MOST_DIMENSIONS:
            raise damaged(f"{_short(name)} has {len(shape)} dimensions")
        needed = math.prod(shape) * ITEM_SIZES[dtype]
        if end - begin != needed:
            raise damaged(f"{_short(name)} has {end - begin} bytes, but its shape {shape} of {dtype} needs {needed}")
        tensors[name] = TensorInfo(dtype, tuple(shape), data + begin, data + end)
    tensors = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)))
    at = data
    for name, info in tensors.items():
        if info.begin != at:
            raise damaged(f"{_short(name)} begins at byte {info.begin}, where {at} was expected")
        at = info.end
    if at > size:
        raise AtelierError(f"{path} is cut short: its tensors end at byte {at}, the file at {size}.",
                           "Download or copy it again.")
    if at < size:
        raise damaged(f"{size - at} bytes at the end belong to no tensor")
    return Header(tensors, metadata)


def _short(name: str) -> str:
    return repr(name if len(name) <= 120 else name[:117] + "...")
