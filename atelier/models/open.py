"""Make a handle of a model on disk: what it is, and a fingerprint of its content."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from ..checkpoint.header import TORCH_NAMES
from ..checkpoint.source import Entry, FileRange, tensor_bytes
from ..convert.anatomy import Anatomy, read_anatomy
from ..convert.prediction import read_prediction
from ..convert.recipe import Recipe
from ..errors import AtelierError
from .handle import DiffusersModel

_BLOCK = 1 << 20


def open_model(path: Path, *, prediction_type: str = "auto") -> DiffusersModel:
    """Open a single-file checkpoint or a diffusers folder. Nothing is copied; the weights are read once, for the
    fingerprint.

    Args:
        path: The `.safetensors` or `.ckpt` file, or the folder.
        prediction_type: "auto", "epsilon" or "v_prediction". No SD2 file says which it is: see `convert.prediction`.

    Raises:
        AtelierError: the path is no model that can be opened.
    """
    path = Path(path)
    if not path.exists():
        raise AtelierError(f"{path} does not exist.", "Choose an existing checkpoint or diffusers folder.")
    anatomy = read_anatomy(path)
    return DiffusersModel(path, anatomy.family.key, read_prediction(anatomy, prediction_type).type,
                          TORCH_NAMES[unet_dtype(anatomy)], _fingerprint(anatomy))


def unet_dtype(anatomy: Anatomy) -> str:
    """The dtype that most of the UNet's numbers have, as safetensors names it."""
    counts: dict[str, int] = {}
    for recipe in anatomy.unet.tensors.values():
        counts[recipe.dtype] = counts.get(recipe.dtype, 0) + recipe.count
    return max(counts, key=lambda dtype: counts[dtype])


def _fingerprint(anatomy: Anatomy) -> str:
    """SHA-256 over names, types, shapes and bytes in diffusers' terms, so that a file and the folder made of it
    agree."""
    recipes = [(f"{component.folder}.{name}", recipe) for component in anatomy.components.values()
               for name, recipe in component.tensors.items()]
    parts = [part for _, recipe in recipes for part in recipe.parts]
    files = sorted({part.place.path for part in parts if isinstance(part.place, FileRange)})
    # Nothing tells a changed pickle from an unchanged one but its file.
    files = files or [anatomy.path]
    state = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return _remembered(_Hashed(state, tuple(recipes)))


class _Hashed:
    """A set of tensors that counts as equal to another while its files have the same size and time."""

    def __init__(self, state: tuple[tuple[str, int, int], ...], recipes: tuple[tuple[str, Recipe], ...]) -> None:
        self.state, self.recipes = state, recipes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self.state == other.state

    def __hash__(self) -> int:
        return hash(self.state)


@lru_cache(maxsize=64)
def _remembered(hashed: _Hashed) -> str:
    whole = hashlib.sha256()
    with ThreadPoolExecutor() as pool:
        for line in sorted(pool.map(_line, hashed.recipes)):
            whole.update(line.encode())
    return whole.hexdigest()


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
