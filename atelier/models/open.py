"""Make a handle of a model on disk: what it is, and a fingerprint of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..checkpoint.entry import Entry, FileRange, tensor_bytes
from ..checkpoint.header import TORCH_NAMES
from ..errors import AtelierError
from ..progress import Progress
from .handle import DiffusersModel
from .layout import ModelLayout, read_layout
from .lazy_tensor import LazyTensor
from .prediction import read_prediction

_BLOCK = 1 << 20


def open_model(path: Path, *, prediction_type: str = "auto", progress: Progress | None = None) -> DiffusersModel:
    """Open a single-file checkpoint or a diffusers folder. Nothing is copied; the weights are read once, for the
    fingerprint.

    Args:
        path: The `.safetensors` or `.ckpt` file, or the folder.
        prediction_type: "auto", "epsilon" or "v_prediction". No SD2 file says which it is: see `convert.prediction`.
        progress: Told of progress while the weights are read; may interrupt.

    Raises:
        AtelierError: the path is no model that can be opened.
    """
    path = Path(path)
    if not path.exists():
        raise AtelierError(f"{path} does not exist.", "Choose an existing checkpoint or diffusers folder.")
    layout = read_layout(path)
    return DiffusersModel(path, layout.family.key, read_prediction(layout, prediction_type).type,
                          TORCH_NAMES[unet_dtype(layout)], _fingerprint(layout, progress or Progress()))


def unet_dtype(layout: ModelLayout) -> str:
    """The dtype that most of the UNet's numbers have, as safetensors names it."""
    counts: dict[str, int] = {}
    for recipe in layout.unet.tensors.values():
        counts[recipe.dtype] = counts.get(recipe.dtype, 0) + recipe.count
    return max(counts, key=lambda dtype: counts[dtype])


def _fingerprint(layout: ModelLayout, progress: Progress) -> str:
    """SHA-256 over names, types, shapes and bytes in diffusers' terms, so that a file and the folder made of it
    agree."""
    recipes = [(f"{component.folder}.{name}", recipe) for component in layout.components.values()
               for name, recipe in component.tensors.items()]
    parts = [part for _, recipe in recipes for part in recipe.parts]
    files = sorted({part.source.path for part in parts if isinstance(part.source, FileRange)})
    # Nothing tells a changed pickle from an unchanged one but its file.
    files = files or [layout.path]
    state = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    if state not in _known:
        _known[state] = _digest(recipes, progress)
    return _known[state]


_known: dict[tuple[tuple[str, int, int], ...], str] = {}
"""Fingerprints by the files that they were read from, with their sizes and times."""


def _digest(recipes: Sequence[tuple[str, LazyTensor]], progress: Progress) -> str:
    lines: list[str] = []
    done = 0
    progress.phase("reading", max(1, sum(map(_megabytes, recipes))))
    with ThreadPoolExecutor() as pool:
        work = [pool.submit(_line, named) for named in recipes]
        try:
            for named, line in zip(recipes, work, strict=True):
                lines.append(line.result())
                done += _megabytes(named)
                progress.advance(done)
                progress.check()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # or it would read all the rest
            raise
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _megabytes(named: tuple[str, LazyTensor]) -> int:
    return sum(part.size for part in named[1].parts) // 1_000_000


def _line(named: tuple[str, LazyTensor]) -> str:
    name, recipe = named
    digest = hashlib.sha256()
    if recipe.transposed:
        digest.update(tensor_bytes(recipe.read()))
    else:
        for part in recipe.parts:
            _update(digest, part)
    return f"{name} {recipe.dtype} {list(recipe.shape)} {digest.hexdigest()}\n"


def _update(digest: hashlib._Hash, part: Entry) -> None:
    if not isinstance(part.source, FileRange):
        digest.update(tensor_bytes(part.read()))
        return
    with part.source.path.open("rb", buffering=0) as file:
        file.seek(part.source.begin)
        left, block = part.size, memoryview(bytearray(min(_BLOCK, part.size)))
        while left:
            got = file.readinto(block[:min(left, len(block))])
            if not got:
                raise AtelierError(f"{part.source.path} became shorter while it was read.", "Run again.")
            digest.update(block[:got])
            left -= got
