"""What `adapter_config.json` of a PEFT folder says about strength."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import AtelierError
from .weights import LoraModule


@dataclass(frozen=True)
class PeftConfig:
    """The fields of PEFT's `LoraConfig` that change the size of the delta."""

    alpha: float
    alpha_pattern: Mapping[str, float]
    rslora: bool

    def scaled(self, name: str, module: LoraModule) -> LoraModule:
        """`module` with the alpha that gives PEFT's scale under the plain rule alpha / r.

        rsLoRA (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732) scales by alpha / √r, so alpha grows by √r.
        """
        path = name.split(".", 1)[1]
        alpha = self.alpha
        for pattern, own in self.alpha_pattern.items():
            if re.fullmatch(rf"(.*\.)?({pattern})", path):
                alpha = own
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
    if raw.get("peft_type") != "LORA":
        raise AtelierError(f"{file} describes a {raw.get('peft_type')!r} adapter, not LORA.", "Choose a LoRA adapter.")
    return PeftConfig(float(raw["lora_alpha"]), raw.get("alpha_pattern") or {}, bool(raw.get("use_rslora")))
