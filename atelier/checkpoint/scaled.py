"""Weights that a file stores as float8 and one scale per layer, in the names that ComfyUI reads: the weight is the
product.

Of a layer, `<layer>.weight` holds the float8 numbers, `<layer>.weight_scale` the scale and `<layer>.comfy_quant` a JSON
text that names the format; instead of these texts there may be a table of them in the file's metadata. Older files say
`scale_weight` and have an empty tensor `scaled_fp8`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AtelierError
from ..json_files import parse_json
from ..limits import Limits
from .entry import Entry
from .header import SAFETENSORS_NAMES, TORCH_NAMES
from .source import Source

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT = ".weight"
SCALE = ".weight_scale"
FORMAT = ".comfy_quant"
"""Endings of a scaled layer's names."""

_METADATA = "_quantization_metadata"
_OLD_MARK, _OLD_SCALE = "scaled_fp8", ".scale_weight"
_OF_INPUTS = (".input_scale", ".scale_input")
"""Scales of what goes into a layer, which change no weight."""
_OTHERS = (".weight_scale_2", ".pre_quant_scale", ".weight_s_rel", ".weight_s_channel", ".weight_codebook")
"""Further tensors of formats that are not read here."""
_FORMATS = ("float8_e4m3fn", "float8_e5m2")
_LIMITS = Limits(size=10_000_000, depth=8, digits=19, count=1_000_000)
_ADVICE = "Choose the float16 or bfloat16 version of this model."


def unscaled(source: Source) -> Source:
    """The source with each scaled weight as the product of its numbers and its scale, computed when it is read, in the
    type that most of the other numbers have (float16 where there are none).

    Raises:
        AtelierError: the file has quantised layers of another format, or some whose scale is missing.
    """
    entries, path = source.entries, source.path
    formats = _formats(source)
    if not formats and not any(name.endswith((SCALE, _OLD_SCALE, *_OTHERS)) for name in entries):
        return source
    dtype, result = _usual_dtype(entries), dict(entries)
    for layer, kind in formats.items():
        scale = next((layer + ending for ending in (SCALE, _OLD_SCALE) if layer + ending in entries), layer + SCALE)
        result[layer + WEIGHT] = _product(path, layer, kind, entries.get(layer + WEIGHT), entries.get(scale), dtype)
        for name in (scale, layer + FORMAT, *(layer + ending for ending in _OF_INPUTS)):
            result.pop(name, None)
    for name in [name for name in result if _is_old_mark(name)]:
        del result[name]
    unknown = [name for name in result if name.endswith((FORMAT, SCALE, _OLD_SCALE, *_OTHERS))]
    if unknown:
        raise AtelierError(f"{path} has {len(unknown)} tensors of a quantisation that is not known here, such as "
                           f"{unknown[0]!r}.", _ADVICE)
    metadata = {key: text for key, text in source.metadata.items() if key != _METADATA}
    return replace(source, entries=result, metadata=metadata)


def _formats(source: Source) -> dict[str, str]:
    """The format of each quantised layer, by its name."""
    entries = source.entries
    texts = {name.removesuffix(FORMAT): _parsed(source.path, name, bytes(entry.read_bytes()))
             for name, entry in entries.items() if name.endswith(FORMAT) and entry.size <= _LIMITS.size}
    if _METADATA in source.metadata:
        table = _parsed(source.path, _METADATA, source.metadata[_METADATA].encode()).get("layers")
        texts |= table if isinstance(table, dict) else {}
    found = {layer: str(text.get("format")) if isinstance(text, dict) else "None" for layer, text in texts.items()}
    for mark in filter(_is_old_mark, entries):
        prefix = mark.removesuffix(_OLD_MARK)
        for name in entries:
            if name.startswith(prefix) and name.endswith(_OLD_SCALE):
                layer = name.removesuffix(_OLD_SCALE)
                weight = entries.get(layer + WEIGHT)
                found[layer] = TORCH_NAMES[weight.dtype] if weight else _FORMATS[0]
    return found


def _is_old_mark(name: str) -> bool:
    return name == _OLD_MARK or name.endswith(f".{_OLD_MARK}")


def _parsed(path: Path, name: str, text: bytes) -> dict[str, Any]:
    try:
        value = parse_json(text, _LIMITS)
    except ValueError as error:
        raise AtelierError(f"{path} has a damaged description of its quantisation: {name!r} is not valid JSON "
                           f"({error}).", "Download or copy the file again.") from error
    return value if isinstance(value, dict) else {}


def _product(path: Path, layer: str, kind: str, weight: Entry | None, scale: Entry | None, dtype: str) -> Entry:
    if kind not in _FORMATS:
        raise AtelierError(f"{path} stores {layer!r} in the quantised format {kind!r}; read are "
                           f"{' and '.join(_FORMATS)}.", _ADVICE)
    if weight is None or weight.dtype != SAFETENSORS_NAMES[kind]:
        raise AtelierError(f"{path} says that {layer!r} is stored as {kind}, and has no such weight.",
                           "Download or copy the file again.")
    if scale is None or scale.count != 1 or scale.dtype not in ("F32", "F16", "BF16"):
        found = "none" if scale is None else f"{TORCH_NAMES[scale.dtype]} of shape {list(scale.shape)}"
        raise AtelierError(f"{path} must have one number as the scale of {layer!r}, and has {found}.", _ADVICE)
    return Entry(dtype, weight.shape, lambda: _multiplied(layer, weight.read(), scale.read(), dtype))


def _multiplied(layer: str, weight: Tensor, scale: Tensor, dtype: str) -> Tensor:
    """Number times scale in float32, rounded once."""
    import torch

    result = (weight.float() * scale.float().reshape(())).to(getattr(torch, TORCH_NAMES[dtype]))
    if not bool(result.isfinite().all()):
        raise AtelierError(f"The weights of {layer!r} times their scale are beyond {TORCH_NAMES[dtype]}.", _ADVICE)
    return result


def _usual_dtype(entries: Mapping[str, Entry]) -> str:
    counts: Counter[str] = Counter()
    for name, entry in entries.items():
        if entry.dtype in ("F32", "F16", "BF16") and not name.endswith((SCALE, _OLD_SCALE)):
            counts[entry.dtype] += entry.count
    return counts.most_common(1)[0][0] if counts else "F16"
