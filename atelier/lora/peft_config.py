"""What PEFT's configuration says about strength: in `adapter_config.json`, or in the header of a diffusers file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import AtelierError
from .names import COMPONENTS
from .weights import LoraModule, LoraWeights

DIFFUSERS_HEADER = "lora_adapter_metadata"
"""Where diffusers' `save_lora_weights` puts the configurations it is given, every field behind its component's name."""


@dataclass(frozen=True)
class PeftConfig:
    """The fields of PEFT's `LoraConfig` that change the size of the delta."""

    alpha: float
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    rslora: bool = False

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> PeftConfig:
        """From the fields of a `LoraConfig`; an absent alpha is PEFT's own default, 8."""
        return cls(float(fields.get("lora_alpha", 8)), fields.get("alpha_pattern") or {},
                   bool(fields.get("use_rslora")))

    def scaled(self, name: str, module: LoraModule) -> LoraModule:
        """`module` with the alpha that gives PEFT's scale under the plain rule alpha / r.

        rsLoRA (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732) scales by alpha / √r, so alpha grows by √r.
        """
        path = name.split(".", 1)[1]
        own = (value for pattern, value in self.alpha_pattern.items() if re.fullmatch(rf"(.*\.)?({pattern})", path))
        alpha = next(own, self.alpha)
        return replace(module, alpha=alpha * (module.rank ** 0.5 if self.rslora else 1.0))


def read_peft_config(folder: Path) -> PeftConfig:
    """Read `folder/adapter_config.json`.

    Raises:
        AtelierError: the file is missing, is not JSON, or describes another kind of adapter.
    """
    file = folder / "adapter_config.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise AtelierError(f"{folder} holds no adapter_config.json.",
                           "Choose a folder written by PEFT's save_pretrained, or a .safetensors file.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AtelierError(f"{file} is not readable JSON ({error}).", "Save the adapter again with PEFT.") from error
    if not isinstance(raw, dict) or raw.get("peft_type") != "LORA":
        kind = raw.get("peft_type") if isinstance(raw, dict) else raw
        raise AtelierError(f"{file} describes a {kind!r} adapter, not LORA.", "Choose a LoRA adapter.")
    return PeftConfig.of(raw)


def scaled_by_header(weights: LoraWeights, metadata: Mapping[str, str]) -> LoraWeights:
    """`weights` with the alphas that a diffusers file states in its header; the same where it states none."""
    try:
        fields = json.loads(metadata.get(DIFFUSERS_HEADER, "{}"))
    except json.JSONDecodeError as error:
        raise AtelierError(f"The LoRA's header entry {DIFFUSERS_HEADER} is not readable JSON ({error}).",
                           "Save the LoRA again with diffusers.") from error
    result = dict(weights)
    for component in COMPONENTS:
        prefix = component + "."
        own = {key[len(prefix):]: value for key, value in fields.items() if key.startswith(prefix)}
        if "lora_alpha" in own:
            config = PeftConfig.of(own)
            result |= {name: config.scaled(name, module) for name, module in weights.items()
                       if name.startswith(prefix)}
    return result
