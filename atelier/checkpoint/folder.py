"""The weight files of a diffusers folder: which of several to read, shards, and variants such as fp16."""

from __future__ import annotations

import re
from pathlib import Path
from reprlib import repr as short

from ..errors import AtelierError
from ..json_files import read_json_object
from .content import check_content, is_lfs_pointer
from .entry import Entry
from .source import open_file

_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_VARIANTS = ("", ".fp16", ".bf16", ".non_ema", ".ema")
"""In order of preference: full weights, smaller copies of them, and variants that only trainers need."""
_SHARD = re.compile(r"-\d{1,6}-of-(?P<count>\d{1,6})")


def component_entries(folder: Path) -> dict[str, Entry]:
    """Every tensor of one component's folder (`unet/`, `vae/`, `text_encoder/`), from one file or from shards.

    Raises:
        AtelierError: there are no weights, or a shard is missing.
    """
    pointer = None
    for ending in ("safetensors", "bin"):
        for variant in _VARIANTS:
            for stem in _STEMS:
                file = folder / f"{stem}{variant}.{ending}"
                if file.is_file():
                    if not is_lfs_pointer(file):
                        return dict(open_file(file).entries)
                    pointer = pointer or file
                # diffusers puts the variant before ".index" in old files and after it in none; transformers too.
                for index in (folder / f"{stem}.{ending}.index{variant}.json",
                              folder / f"{stem}{variant}.{ending}.index.json"):
                    if index.is_file():
                        return _sharded(index)
                for pattern in (f"{stem}{variant}-*-of-*.{ending}", f"{stem}-*-of-*{variant}.{ending}"):
                    if found := sorted(folder.glob(pattern)):
                        return _unlisted_shards(found)
    if pointer:
        check_content(pointer)
    raise AtelierError(f"{folder} holds no weights.", "Choose a complete diffusers folder.")


def model_folder(path: Path) -> Path:
    """The folder of the model itself: of the Hugging Face hub's cache of a repository (`models--owner--name`), the
    snapshot that its branch "main" stands at, else the newest; any other path is returned as it is."""
    snapshots = path / "snapshots"
    if not snapshots.is_dir() or not (path / "refs").is_dir():
        return path
    reference = path / "refs" / "main"
    name = reference.read_text(encoding="utf-8").strip() if reference.is_file() else ""
    found = [folder for folder in snapshots.iterdir() if folder.is_dir()]
    named = [folder for folder in found if folder.name == name]
    return next(iter(named), None) or max(found, key=lambda folder: folder.stat().st_mtime, default=path)


def _unlisted_shards(found: list[Path]) -> dict[str, Entry]:
    """The tensors of shards without an index; their names say how many there are."""
    entries: dict[str, Entry] = {}
    number = _SHARD.search(found[0].name)
    if number is None:
        raise AtelierError(f"{found[0]} is no shard, though its name looks like it.", "Choose a complete folder.")
    for n in range(1, int(number["count"]) + 1):
        name = _SHARD.sub(f"-{n:0{len(number['count'])}d}-of-{number['count']}", found[0].name)
        if found[0].with_name(name) not in found:
            raise AtelierError(f"{found[0].with_name(name)} is missing.", "Download or copy the folder again.")
        entries |= open_file(found[0].with_name(name)).entries
    return entries


def _sharded(index: Path) -> dict[str, Entry]:
    shards = read_json_object(index, "Choose a complete diffusers folder.").get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise AtelierError(f"{index} names no shards.", "Choose a complete diffusers folder.")
    for tensor, name in shards.items():
        if not isinstance(name, str) or not 0 < len(name.encode()) < 256:
            raise AtelierError(f"{index} names {short(name)} as the file of {short(tensor)}.",
                               "Download or copy the folder again.")
    entries: dict[str, Entry] = {}
    for name in sorted(set(shards.values())):
        # A shard lies beside its index; anything else is a trick.
        if Path(name).name != name:
            raise AtelierError(f"{index} names a shard {name!r} outside its folder.", "Do not use this model.")
        if not (index.parent / name).is_file():
            raise AtelierError(f"{index.parent / name} is missing.", "Download or copy the folder again.")
        entries |= open_file(index.parent / name).entries
    missing = [tensor for tensor in shards if tensor not in entries]
    if missing:
        raise AtelierError(f"{index} promises {len(missing)} tensors that no shard holds, such as {missing[0]!r}.",
                           "Download or copy the folder again.")
    return entries
