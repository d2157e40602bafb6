"""What a LoRA file holds: which layers it changes and how much, and what its header says of its training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..json_files import parse_json

if TYPE_CHECKING:
    from torch import Tensor

    from .weights import Adapter

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
    rank: int | None
    """None where its kind has none."""
    alpha: float | None
    norm: float | None
    """Frobenius norm of its change, DoRA's magnitude aside; None where that depends on the model's weights."""
    kind: str = "LoRA"


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
    kinds: str
    """How many layers are of which kind, in words."""
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
        ranks = sorted({layer.rank for layer in self.layers if layer.rank is not None})
        norms = sorted(((layer.norm, layer.name) for layer in self.layers if layer.norm is not None), reverse=True)
        kinds = {layer.kind for layer in self.layers}
        what = "DoRA" if self.dora and kinds == {"LoRA"} else " + ".join(sorted(kinds))
        size = f" of rank {ranks[0] if len(ranks) == 1 else f'{ranks[0]} to {ranks[-1]}'}" if ranks else ""
        lines = [f"{self.file.name}: {what}{size}, {self.dtype}",
                 *([f"kinds: {self.kinds}"] if len(kinds) > 1 else []),
                 *(f"{name}: {count} layers" for name, count in self.parts.items())]
        if norms:
            lines.append(f"norm of the change: {math.sqrt(sum(norm ** 2 for norm, _ in norms)):.4g}")
        lines += [f"  {norm:.4g} {name}" for norm, name in norms[:_SHOWN]]
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
    from .keys import whole_adapters, whole_others

    if path.is_dir():
        return is_peft_folder(path)
    keys = open_file(path).entries
    return bool(whole_adapters(keys, "unet") or whole_others(keys, "unet"))


def inspect_lora(path: Path) -> LoraInspection:
    """Read a LoRA and say what it is.

    Args:
        path: A LoRA file or PEFT folder.

    Raises:
        AtelierError: it is no usable LoRA.
    """
    from .file import read_lora
    from .weights import kinds_text, plain

    found = read_lora(path)
    layers = tuple(_layer(name, module) for name, module in found.weights.items())
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for module in found.weights.values()
                     for tensor in _tensors(module) if tensor.is_floating_point()})
    return LoraInspection(
        file=path, layers=layers, parts=dict(Counter(_part(layer.name) for layer in layers)), dtype=" + ".join(dtypes),
        dora=any(module.magnitude is not None for module in plain(found.weights).values()),
        kinds=kinds_text(found.weights), left_out=found.left_out(),
        trigger=found.metadata.get("modelspec.trigger_phrase", ""), tags=_tags(found.metadata),
        settings={name: value for name, keys in _SETTINGS.items()
                  if (value := next((found.metadata[key] for key in keys if found.metadata.get(key)), ""))
                  and value != "None"})


def _layer(name: str, module: Adapter) -> LoraLayer:
    from .low_rank import norm
    from .weights import LoraModule

    if isinstance(module, LoraModule):
        return LoraLayer(name, module.rank, module.alpha, norm(module))
    return LoraLayer(name, module.rank, module.alpha,
                     None if module.by_weights else float(module.delta().double().norm()), module.kind)


def _tensors(module: Adapter) -> Iterable[Tensor]:
    from .weights import LoraModule

    return (module.down,) if isinstance(module, LoraModule) else module.tensors.values()


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
