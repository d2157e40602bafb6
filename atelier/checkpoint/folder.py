"""The weight files of a diffusers folder: which of several to read, shards, and variants such as fp16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import AtelierError
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


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        AtelierError: the file is missing or is no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AtelierError(f"{path} cannot be read as JSON.", "Choose a complete diffusers folder.") from error
    if not isinstance(value, dict):
        raise AtelierError(f"{path} is not a JSON object.", "Choose a complete diffusers folder.")
    return value


def _sharded(index: Path) -> dict[str, Entry]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise AtelierError(f"{index} names no shards.", "Choose a complete diffusers folder.")
    entries: dict[str, Entry] = {}
    for name in sorted(set(shards.values())):
        # A shard lies beside its index; anything else is a trick.
        if not isinstance(name, str) or Path(name).name != name:
            raise AtelierError(f"{index} names a shard {name!r} outside its folder.", "Do not use this model.")
        if not (index.parent / name).is_file():
            raise AtelierError(f"{index.parent / name} is missing.", "Download or copy the folder again.")
        entries |= open_file(index.parent / name).entries
    missing = [tensor for tensor in shards if tensor not in entries]
    if missing:
        raise AtelierError(f"{index} promises {len(missing)} tensors that no shard holds, such as {missing[0]!r}.",
                           "Download or copy the folder again.")
    return entries
