"""A whole training request, and the flat names by which its values are set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ...errors import AtelierError
from .checks import check_types, require, require_not_negative
from .device import DeviceConfig
from .inpainting import InpaintingConfig
from .levels import LevelConfig
from .lora import LoraConfig
from .outputs import OutputConfig, SampleConfig
from .recipe import CaptionConfig, LossConfig, OptimizerConfig, ValidationConfig

LENGTH = ("epochs", "steps")

RENAMED = {"form": "lora_format"}
"""Names that released versions used, and today's."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What to train, for how long, and what to write. Length is given as epochs or as optimiser steps, not both.

    Raises:
        AtelierError: both or neither length is given, or a value is out of range or of another type.
    """

    lora: LoraConfig = field(default_factory=LoraConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    levels: LevelConfig = field(default_factory=LevelConfig)
    captions: CaptionConfig = field(default_factory=CaptionConfig)
    inpainting: InpaintingConfig = field(default_factory=InpaintingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)
    epochs: int = 0
    """Passes over all pictures (repeats counted)."""
    steps: int = 0
    """Optimiser steps."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        require_not_negative(self, *LENGTH)
        require((self.epochs > 0) != (self.steps > 0), "epochs and steps", (self.epochs, self.steps),
                "Give exactly one of them a number above 0.")
        require(self.lora.kind in ("lora", "dora") or self.output.lora_format == "kohya",
                f"lora_format with kind {self.lora.kind!r}", self.output.lora_format,
                "Choose kohya, the only one that has names for it.")
        require(self.lora.kind in ("lora", "dora") or self.optimizer.lora_plus_ratio == 1,
                f"lora_plus_ratio with kind {self.lora.kind!r}", self.optimizer.lora_plus_ratio,
                "Leave it at 1: it is a rate for the B matrices of LoRA.")
        require(not (self.preservation and self.lora.train_text_encoder), "preservation_class with train_text_encoder",
                self.captions.preservation_class, "Train without the text encoder: the class is held by the network "
                "alone, and a text encoder that learns would give its word another meaning.")
        require(0 <= self.seed < 2**63, "seed", self.seed, "Choose a whole number from 0 to 2^63 - 1.")

    @property
    def preservation(self) -> float:
        """Weight of holding the class to what it was; 0 where there is none."""
        return self.loss.preservation_weight if self.captions.preservation_class else 0.0

    def override(self, values: Mapping[str, Any]) -> TrainRequest:
        """This request with other values, by their flat names (`rank`, `learning_rate`, `sample_prompt`, `steps`, …).

        A new length replaces the old one, whichever unit it is in; one of 0 is none.

        Raises:
            AtelierError: a name is unknown, or a value is out of range or of another type.
        """
        values = {RENAMED.get(name, name): value for name, value in values.items()}
        unknown = sorted(set(values) - set(FIELDS))
        require(not unknown, "The training option", ", ".join(unknown), f"Known options: {', '.join(sorted(FIELDS))}.")
        changes: dict[str, Any] = {name: values[name] for name in LENGTH if values.get(name)}
        if changes:
            changes = {**dict.fromkeys(LENGTH, 0), **changes}
        if "seed" in values:
            changes["seed"] = values["seed"]
        for part in PARTS:
            changed = {name: value for name, value in values.items() if FIELDS[name] == part}
            if changed:
                changes[part] = replace(getattr(self, part), **changed)
        return replace(self, **changes)


PARTS: dict[str, type] = {
    "lora": LoraConfig, "optimizer": OptimizerConfig, "loss": LossConfig, "levels": LevelConfig,
    "captions": CaptionConfig, "inpainting": InpaintingConfig, "validation": ValidationConfig,
    "samples": SampleConfig, "output": OutputConfig,
    "device": DeviceConfig}
"""Dataclasses of the parts by their field in `TrainRequest`."""

FIELDS: dict[str, str] = {**dict.fromkeys((*LENGTH, "seed"), ""),
                          **{option.name: part for part, config in PARTS.items() for option in fields(config)}}
"""The part that each flat name belongs to; "" for those of the request itself. A name stands in one part only."""


def names_of(*parts: str) -> set[str]:
    """The flat names of these parts."""
    return {name for name, part in FIELDS.items() if part in parts}


def only(values: Mapping[str, Any], names: set[str], where: str) -> Mapping[str, Any]:
    """`values`, which hold no other names than `names`.

    Raises:
        AtelierError: they do; the message says `where`.
    """
    if not isinstance(values, Mapping):
        raise AtelierError(f"{where} is {values!r}.", "Write it as a table of options.")
    unknown = sorted(set(values) - names - {old for old, new in RENAMED.items() if new in names})
    require(not unknown, f"The option in {where}", ", ".join(unknown), f"Known options: {', '.join(sorted(names))}.")
    return values
