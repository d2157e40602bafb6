"""Generation settings found in a picture's metadata."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ...json_files import parse_json


@dataclass(frozen=True)
class Lora:
    """A LoRA that a picture was made with."""

    name: str
    """As the program calls it, usually the file's name without ending."""
    strength: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PictureMetadata:
    """Prompt and settings of one picture. Values that the picture does not state are empty or None."""

    program: str
    """The program whose metadata format it is: "A1111", "Forge", "CivitAI", "Fooocus", "SwarmUI", "NovelAI",
    "InvokeAI", "ComfyUI" or "Atelier"."""
    positive: str = ""
    negative: str = ""
    sampler: str = ""
    """By the host's name where it has one, else as the program calls it."""
    scheduler: str = ""
    """The same for the spacing of the noise levels."""
    steps: int | None = None
    cfg: float | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    model: str = ""
    """As the program calls it, usually the file's name without ending."""
    model_hash: str = ""
    loras: tuple[Lora, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    """By name of a field of these, why it is empty or not all that the picture was made with."""

    def completed(self, other: PictureMetadata | None) -> PictureMetadata:
        """The same with what it leaves out taken from another description of the picture."""
        if other is None:
            return self
        missing = [entry.name for entry in fields(self) if getattr(self, entry.name) in ("", None, ())]
        left_out = {name: why for name, why in other.left_out.items() if name in missing}
        return replace(self, **{name: getattr(other, name) for name in missing},
                       left_out={**left_out, **self.left_out})

    @property
    def empty(self) -> bool:
        """True when neither a prompt nor any setting was found."""
        return not (self.positive or self.negative or self.steps is not None or self.seed is not None or self.model)


_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def number(value: Any) -> float | None:
    """A finite number from a number or a text that begins with one; None for anything else."""
    if isinstance(value, str):
        match = _NUMBER.match(value)
        value = match.group() if match else None
    if value is None or isinstance(value, bool | list | dict):
        return None
    try:
        return float(value) if math.isfinite(float(value)) else None
    except OverflowError:
        return None


def whole(value: Any, most: int = 2**64 - 1) -> int | None:
    """A whole number from 0 to `most`, exact beyond 2^53; None for anything else."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value.strip()[:40])
    if not isinstance(value, int) or isinstance(value, bool):
        inexact = number(value)
        if inexact is None:
            return None
        value = int(inexact)
    return value if 0 <= value <= most else None


def parse_object(written: str) -> dict[str, Any] | None:
    """An object from JSON; None for anything else, and for more than the limits of `parse_json`."""
    try:
        value = parse_json(written)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def text(value: Any) -> str:
    """A text as it is; nothing for any other type."""
    return value.strip() if isinstance(value, str) else ""


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; nothing for any other type."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def stem(name: str) -> str:
    """A model file's name without folders and ending."""
    last = re.split(r"[/\\]", name.strip())[-1]
    return re.sub(r"\.(safetensors|ckpt|pt|pth|bin|gguf|sft)$", "", last, flags=re.IGNORECASE)


def best_match(name: str, known: list[str]) -> str | None:
    """The file among `known` (names with folders and endings) that `name` stands for, in upper or lower case."""
    wanted = stem(name).casefold()
    exact = [file for file in known if file.casefold().replace("\\", "/") == name.casefold().replace("\\", "/")]
    return next(iter(exact or [file for file in known if wanted and stem(file).casefold() == wanted]), None)
