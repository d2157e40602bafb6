"""What PEFT's configuration says about strength: in `adapter_config.json`, or in the header of a diffusers file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as short
from typing import Any

from ..errors import AtelierError
from ..json_files import parse_json, read_json
from ..limits import Limits
from .module_patterns import BadPattern, ModulePatterns
from .names import COMPONENTS
from .other_adapter import LOKR
from .weights import Adapter, LoraModule, LoraWeights

DIFFUSERS_HEADER = "lora_adapter_metadata"
"""Where diffusers' `save_lora_weights` puts the configurations it is given, every field behind its component's name."""

KINDS = ("LORA", "LOHA", "LOKR")
"""PEFT's names of the kinds that are read from its folders."""

_LIMITS = Limits(digits=1000)
"""Numbers may be long, so that the message on one names its field."""


@dataclass(frozen=True)
class PeftConfig:
    """The fields of PEFT's `LoraConfig`, `LoHaConfig` or `LoKrConfig` that change the size of the delta."""

    alpha: float
    alpha_pattern: ModulePatterns
    rslora: bool = False
    rank: float = 8.0
    rank_pattern: ModulePatterns | None = None
    """Of LoKr, where a layer's tensors do not tell its rank."""

    @classmethod
    def of(cls, fields: Mapping[str, Any], origin: str) -> PeftConfig:
        """From the fields of a configuration; an absent alpha is PEFT's own default, 8.

        Args:
            fields: By name, as JSON has them.
            origin: Where they come from, for messages; the field's name is put behind it.

        Raises:
            AtelierError: a field is of another type, or a pattern is none that `ModulePatterns` reads.
        """
        patterns, rslora = fields.get("alpha_pattern") or {}, fields.get("use_rslora") or False
        if not isinstance(rslora, bool):
            raise _wrong(origin, "use_rslora", rslora)
        alpha = "lora_alpha" if fields.get("peft_type", "LORA") == "LORA" else "alpha"
        return cls(_number(origin, alpha, fields.get(alpha, 8)), _patterns(origin, "alpha_pattern", patterns), rslora,
                   _number(origin, "r", fields.get("r", 8)),
                   _patterns(origin, "rank_pattern", fields.get("rank_pattern") or {}) if alpha == "alpha" else None)

    def scaled(self, name: str, module: Adapter) -> Adapter:
        """An adapter with the alpha that gives PEFT's scale under the plain rule alpha / r.

        rsLoRA (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732) scales by alpha / √r, so alpha grows by √r. A LoKr
        of two whole matrices is scaled by PEFT alone, so its first matrix is multiplied.
        """
        path = name.split(".", 1)[1]
        own = self.alpha_pattern.find(path)
        alpha = self.alpha if own is None else own
        if not isinstance(module, LoraModule):
            if module.kind != LOKR or module.rank is not None:
                return replace(module, alpha=alpha)
            rank = self.rank_pattern.find(path) if self.rank_pattern else None
            first = module.tensors["lokr_w1"] * (alpha / (self.rank if rank is None else rank))
            return replace(module, tensors={**module.tensors, "lokr_w1": first}, alpha=alpha)
        return replace(module, alpha=alpha * (module.rank ** 0.5 if self.rslora else 1.0))


def _patterns(origin: str, key: str, values: object) -> ModulePatterns:
    if not isinstance(values, Mapping):
        raise _wrong(origin, key, values)
    own = {pattern: _number(origin, key, value) for pattern, value in values.items()}
    try:
        return ModulePatterns(own)
    except BadPattern as error:
        raise AtelierError(f"{origin}{key} is {short(dict(values))}, which is not read: {error}.",
                           "Save the LoRA again with PEFT, with whole names of modules.") from error


def _number(origin: str, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise _wrong(origin, key, value)
    return float(value)


def _wrong(origin: str, key: str, value: object) -> AtelierError:
    return AtelierError(f"{origin}{key} is {short(value)}, which PEFT would not write.",
                        "Save the LoRA again with PEFT.")


def read_peft_config(folder: Path) -> PeftConfig:
    """Read `folder/adapter_config.json`.

    Raises:
        AtelierError: the file is missing, is not JSON, describes another kind of adapter, or a field is of another
            type.
    """
    file = folder / "adapter_config.json"
    if not file.is_file():
        raise AtelierError(f"{folder} holds no adapter_config.json.",
                           "Choose a folder written by PEFT's save_pretrained, or a .safetensors file.")
    raw = read_json(file, "Save the adapter again with PEFT.", _LIMITS)
    if not isinstance(raw, dict) or raw.get("peft_type") not in KINDS:
        kind = raw.get("peft_type") if isinstance(raw, dict) else raw
        raise AtelierError(f"{file} describes a {short(kind)} adapter, none of {', '.join(KINDS)}.",
                           "Choose an adapter of one of these kinds.")
    return PeftConfig.of(raw, f"{file}: ")


def scaled_by_header(weights: LoraWeights, metadata: Mapping[str, str], origin: str) -> LoraWeights:
    """`weights` with the alphas that a diffusers file states in its header; the same where it states none.

    Raises:
        AtelierError: the header's entry is no JSON object, or a field of it is of another type. The message begins with
            `origin`.
    """
    entry = f"{origin}: the header entry {DIFFUSERS_HEADER}"
    try:
        fields = parse_json(metadata.get(DIFFUSERS_HEADER, "{}"), _LIMITS)
    except ValueError as error:
        raise AtelierError(f"{entry} is not readable JSON ({error}).", "Save the LoRA again with diffusers.") from error
    if not isinstance(fields, dict):
        raise AtelierError(f"{entry} is {short(fields)}, not a table.", "Save the LoRA again with diffusers.")
    result = dict(weights)
    for component in COMPONENTS:
        prefix = component + "."
        own = {key[len(prefix):]: value for key, value in fields.items() if key.startswith(prefix)}
        if "lora_alpha" in own:
            config = PeftConfig.of(own, f"{entry}: {prefix}")
            result |= {name: config.scaled(name, module) for name, module in weights.items()
                       if name.startswith(prefix)}
    return result
