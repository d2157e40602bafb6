"""The weight files of a diffusers folder: which of several to read, shards, and variants such as fp16."""

from __future__ import annotations

from pathlib import Path
from reprlib import repr as short

from ..errors import AtelierError
from ..json_files import read_json_object
from .entry import Entry
from .source import open_file

_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_VARIANTS = ("", ".fp16", ".bf16", ".non_ema", ".ema")
"""In order of preference: full weights, smaller copies of them, and variants that only trainers need."""


def component_entries(folder: Path) -> dict[str, Entry]:
    """Every tensor of one component's folder (`unet/`, `vae/`, `text_encoder/`), from one file or from shards.

    Raises:
        AtelierError: there are no weights, or a shard is missing.
    """
    for ending in ("safetensors", "bin"):
        for variant in _VARIANTS:
            for stem in _STEMS:
                file = folder / f"{stem}{variant}.{ending}"
                if file.is_file():
                    return dict(open_file(file).entries)
                # diffusers puts the variant before ".index" in old files and after it in none; transformers too.
                for index in (folder / f"{stem}.{ending}.index{variant}.json",
                              folder / f"{stem}{variant}.{ending}.index.json"):
                    if index.is_file():
                        return _sharded(index)
    raise AtelierError(f"{folder} holds no weights.", "Choose a complete diffusers folder.")


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
