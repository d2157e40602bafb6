"""Make a handle of a model on disk: what it is, and a fingerprint of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..checkpoint.header import TORCH_NAMES
from ..checkpoint.source import Entry, FileRange, tensor_bytes
from ..convert.anatomy import Anatomy, read_anatomy
from ..convert.prediction import read_prediction
from ..convert.recipe import Recipe
from ..errors import AtelierError
from ..progress import Monitor
from .handle import DiffusersModel

_BLOCK = 1 << 20


def open_model(path: Path, *, prediction_type: str = "auto", monitor: Monitor | None = None) -> DiffusersModel:
    """Open a single-file checkpoint or a diffusers folder. Nothing is copied; the weights are read once, for the
    fingerprint.

    Args:
        path: The `.safetensors` or `.ckpt` file, or the folder.
        prediction_type: "auto", "epsilon" or "v_prediction". No SD2 file says which it is: see `convert.prediction`.
        monitor: Told of progress while the weights are read; may interrupt.

    Raises:
        AtelierError: the path is no model that can be opened.
    """
    path = Path(path)
    if not path.exists():
        raise AtelierError(f"{path} does not exist.", "Choose an existing checkpoint or diffusers folder.")
    anatomy = read_anatomy(path)
    return DiffusersModel(path, anatomy.family.key, read_prediction(anatomy, prediction_type).type,
                          TORCH_NAMES[unet_dtype(anatomy)], _fingerprint(anatomy, monitor or Monitor()))


def unet_dtype(anatomy: Anatomy) -> str:
    """The dtype that most of the UNet's numbers have, as safetensors names it."""
    counts: dict[str, int] = {}
    for recipe in anatomy.unet.tensors.values():
        counts[recipe.dtype] = counts.get(recipe.dtype, 0) + recipe.count
    return max(counts, key=lambda dtype: counts[dtype])


def _fingerprint(anatomy: Anatomy, monitor: Monitor) -> str:
    """SHA-256 over names, types, shapes and bytes in diffusers' terms, so that a file and the folder made of it
    agree."""
    recipes = [(f"{component.folder}.{name}", recipe) for component in anatomy.components.values()
               for name, recipe in component.tensors.items()]
    parts = [part for _, recipe in recipes for part in recipe.parts]
    files = sorted({part.place.path for part in parts if isinstance(part.place, FileRange)})
    # Nothing tells a changed pickle from an unchanged one but its file.
    files = files or [anatomy.path]
    state = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    if state not in _known:
        _known[state] = _digest(recipes, monitor)
    return _known[state]


_known: dict[tuple[tuple[str, int, int], ...], str] = {}
"""Fingerprints by the files that they were read from, with their sizes and times."""


def _digest(recipes: Sequence[tuple[str, Recipe]], monitor: Monitor) -> str:
    lines: list[str] = []
    done = 0
    monitor.phase("reading", max(1, sum(map(_megabytes, recipes))))
    with ThreadPoolExecutor() as pool:
        work = [pool.submit(_line, named) for named in recipes]
        try:
            for named, line in zip(recipes, work, strict=True):
                lines.append(line.result())
                done += _megabytes(named)
                monitor.advance(done)
                monitor.check()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # or it would read all the rest
            raise
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _megabytes(named: tuple[str, Recipe]) -> int:
    return sum(part.size for part in named[1].parts) // 1_000_000


def _line(named: tuple[str, Recipe]) -> str:
    name, recipe = named
    digest = hashlib.sha256()
    if recipe.transposed:
        digest.update(tensor_bytes(recipe.read()))
    else:
        for part in recipe.parts:
            _update(digest, part)
    return f"{name} {recipe.dtype} {list(recipe.shape)} {digest.hexdigest()}\n"


def _update(digest: hashlib._Hash, part: Entry) -> None:
    if not isinstance(part.place, FileRange):
        digest.update(tensor_bytes(part.read()))
        return
    with part.place.path.open("rb", buffering=0) as file:
        file.seek(part.place.begin)
        left, block = part.size, memoryview(bytearray(min(_BLOCK, part.size)))
        while left:
            got = file.readinto(block[:min(left, len(block))])
            if not got:
                raise AtelierError(f"{part.place.path} became shorter while it was read.", "Run again.")
            digest.update(block[:got])
            left -= got
