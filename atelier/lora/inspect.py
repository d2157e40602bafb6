"""What a LoRA file holds: which layers it changes and how much, and what its header says of its training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..json_files import parse_json

_SETTINGS = {
    "model": ("ss_sd_model_name", "modelspec.architecture"), "learning rate": ("ss_unet_lr", "ss_learning_rate"),
    "text encoder's learning rate": ("ss_text_encoder_lr",), "optimiser": ("ss_optimizer",),
    "schedule": ("ss_lr_scheduler",), "steps": ("ss_steps", "ss_max_train_steps"), "epochs": ("ss_num_epochs",),
    "pictures": ("ss_num_train_images",), "batch size": ("ss_total_batch_size", "ss_batch_size_per_device"),
    "resolution": ("ss_resolution", "modelspec.resolution"), "min-SNR gamma": ("ss_min_snr_gamma",),
    "seed": ("ss_seed",), "made by": ("atelier.made_by",),
}
"""Settings in the order in which they are told, and the keys of a header that may hold them."""

_PARTS = (("attention to the text", ".attn2."), ("self-attention", ".attn1."), ("feed-forward", ".ff."),
          ("feed-forward", ".mlp."), ("self-attention", ".self_attn."), ("convolutions", ".conv"),
          ("projections", ".proj_"))
_SHOWN = 5
"""Layers with the largest change that the text names."""


@dataclass(frozen=True)
class LoraLayer:
    """One layer."""

    name: str
    rank: int
    alpha: float
    norm: float
    """Frobenius norm of its change, DoRA's magnitude aside."""


@dataclass(frozen=True, kw_only=True)
class LoraInspection:
    """The result of `inspect_lora`."""

    file: Path
    layers: tuple[LoraLayer, ...]
    """In the file's order."""
    parts: Mapping[str, int]
    """Layers by component and kind, such as "unet, attention to the text"."""
    dtype: str
    """torch's name of the stored type; several with + between."""
    dora: bool
    left_out: str
    """A line on keys that are no part of an adapter; empty where there are none."""
    trigger: str
    """The trigger word that the header gives; empty without one."""
    tags: tuple[tuple[str, int], ...]
    """The most frequent parts of captions, and their counts."""
    settings: Mapping[str, str]
    """What the header says of the training."""

    def text(self) -> str:
        """Lines for a person."""
        ranks = sorted({layer.rank for layer in self.layers})
        total = math.sqrt(sum(layer.norm ** 2 for layer in self.layers))
        lines = [f"{self.file.name}: {'DoRA' if self.dora else 'LoRA'} of rank "
                 f"{ranks[0] if len(ranks) == 1 else f'{ranks[0]} to {ranks[-1]}'}, {self.dtype}",
                 *(f"{name}: {count} layers" for name, count in self.parts.items()),
                 f"norm of the change: {total:.4g}"]
        largest = sorted(self.layers, key=lambda layer: -layer.norm)[:_SHOWN]
        lines += [f"  {layer.norm:.4g} {layer.name}" for layer in largest]
        lines += [f"trigger: {self.trigger}"] if self.trigger else []
        if self.tags:
            lines.append("captions: " + ", ".join(f"{tag} ({count})" for tag, count in self.tags[:10]))
        lines += [f"{name}: {value}" for name, value in self.settings.items()]
        return "\n".join([*lines, self.left_out] if self.left_out else lines)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "file": str(self.file)}


def is_lora(path: Path) -> bool:
    """Whether a file or folder holds adapters, by its keys alone."""
    from ..checkpoint.source import open_file
    from .file import is_peft_folder
    from .keys import whole_adapters

    return is_peft_folder(path) if path.is_dir() else bool(whole_adapters(open_file(path).entries, "unet"))


def inspect_lora(path: Path) -> LoraInspection:
    """Read a LoRA and say what it is.

    Args:
        path: A LoRA file or PEFT folder.

    Raises:
        AtelierError: it is no usable LoRA.
    """
    from .file import read_lora
    from .low_rank import norm

    found = read_lora(path)
    layers = tuple(LoraLayer(name, module.rank, module.alpha, norm(module)) for name, module in found.weights.items())
    dtypes = sorted({str(module.down.dtype).removeprefix("torch.") for module in found.weights.values()})
    return LoraInspection(
        file=path, layers=layers, parts=dict(Counter(_part(layer.name) for layer in layers)), dtype=" + ".join(dtypes),
        dora=any(module.magnitude is not None for module in found.weights.values()), left_out=found.left_out(),
        trigger=found.metadata.get("modelspec.trigger_phrase", ""), tags=_tags(found.metadata),
        settings={name: value for name, keys in _SETTINGS.items()
                  if (value := next((found.metadata[key] for key in keys if found.metadata.get(key)), ""))
                  and value != "None"})


def _part(name: str) -> str:
    component = name.split(".", 1)[0]
    return f"{component}, {next((words for words, part in _PARTS if part in name), 'other layers')}"


def _tags(metadata: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """kohya's tag counts, by data set and tag; none where the header holds something else."""
    try:
        sets = parse_json(metadata.get("ss_tag_frequency", "{}"))
        counts = Counter[str]()
        for tags in sets.values():
            counts.update({str(tag).strip(): int(count) for tag, count in tags.items()})
    except (AttributeError, TypeError, ValueError):  # other people's headers
        return ()
    return tuple(counts.most_common())
