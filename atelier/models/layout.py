"""What a model file or folder is made of, in diffusers' terms: family, components, their tensors and configurations.

Everything is derived from names and shapes; there is no list of known models, and no tensor is read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..checkpoint.entry import FileRange
from ..checkpoint.folder import component_entries, model_folder
from ..checkpoint.scaled import unscaled
from ..checkpoint.source import Source, open_file
from ..errors import AtelierError
from .detect import component_config, family_of_shapes, what_else
from .families import Family, TextEncoderSpec
from .keymap import Shape
from .lazy_tensor import LazyTensor, to_diffusers
from .prefixes import EMA_PREFIX, TEXT_SURPLUS, UNET_PREFIX, VAE_PREFIX, VAE_SURPLUS, original_table, text_prefixes
from .stated_config import read_component_config, read_scheduler_config
from .text_keys import TOKEN_TABLE, VOCABULARY, layer_count, with_root
from .unet_keys import UNetLayout, unet_table
from .vae_keys import current_name, original_attention

COMPUTED = ("embeddings.position_ids", "logit_scale")
"""Endings of tensors that no model needs: position ids, which every reader computes, and the scale of CLIP's loss."""

UNET_PLACES = (UNET_PREFIX, "diffusion_model.", "")
"""What stands before the UNet's names in a file: of a checkpoint, and of files that hold nothing else."""

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod)\.")

FileState = tuple[tuple[str, int, int], ...]
"""Path, size and modification time (ns) of each weight file."""

OPEN_CLIP_H_LAYERS = 24
"""Layers of OpenCLIP ViT-H as it was trained; SD2 uses all but the last."""


@dataclass(frozen=True)
class Component:
    """One part of a model: its tensors under diffusers names and the configuration that builds it."""

    folder: str
    tensors: Mapping[str, LazyTensor]
    config: Mapping[str, Any]

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return sum(tensor.count for tensor in self.tensors.values())


@dataclass(frozen=True, kw_only=True)
class ModelLayout:
    """The components of a model and where their tensors are stored, by diffusers' folder names, the UNet first."""

    source: Source
    family: Family
    components: Mapping[str, Component]
    unused: tuple[str, ...] = ()
    """Names of stored tensors that belong to no component: EMA copies, optimiser states, constants."""
    ema: bool = False
    """Whether a second, averaged UNet is stored."""
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    """The folder's own scheduler configuration; of a file, empty."""

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self.source.path

    @property
    def unet(self) -> Component:
        """The part that every model has."""
        return self.components["unet"]

    @property
    def parameters(self) -> int:
        """How many numbers all components hold."""
        return sum(component.parameters for component in self.components.values())

    @property
    def holds_weights(self) -> bool:
        """Whether some of its tensors are memory or an open memory map (pickles) instead of byte ranges of a file."""
        return not all(isinstance(entry.source, FileRange) for entry in self.source.entries.values())

    @property
    def missing(self) -> tuple[str, ...]:
        """The components that the family has and this model lacks, by folder name."""
        required = ("vae", *(spec.folder for spec in self.family.text_encoders))
        return tuple(name for name in required if name not in self.components)

    @property
    def missing_words(self) -> str:
        """The same for a person, such as "VAE, text encoder (CLIP-L)"."""
        clip = {spec.folder: f"text encoder ({_CLIP_NAMES[spec.architecture, spec.pooled]})"
                for spec in self.family.text_encoders}
        return ", ".join({"vae": "VAE", **clip}[name] for name in self.missing)

    def file_state(self) -> FileState:
        """The present state of its weight files. A file that is missing counts with size and time -1."""
        return tuple(_file_state(file) for file in sorted(self.source.files))


_CLIP_NAMES = {("clip", False): "CLIP-L", ("open_clip", False): "CLIP-H", ("open_clip", True): "CLIP-G"}


def surplus_tokens(layout: ModelLayout) -> dict[str, int]:
    """How many tokens each text encoder has beyond CLIP's own, by folder name; those that have none are left out."""
    tables = {name: part.tensors.get(TOKEN_TABLE) for name, part in layout.components.items()}
    return {name: table.shape[0] - VOCABULARY for name, table in tables.items()
            if table is not None and table.shape[0] > VOCABULARY}


def _file_state(file: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError:
        return str(file), -1, -1
    return str(file), status.st_size, status.st_mtime_ns


def read_layout(path: Path) -> ModelLayout:
    """Read the layout of a single file or a diffusers folder, without reading a tensor.

    Raises:
        AtelierError: the path is no Stable Diffusion model; the message says what it lacks.
    """
    path = model_folder(path)
    return _of_folder(path) if path.is_dir() else _of_file(_plain(_unwrapped(open_file(path))))


# --- single files ---------------------------------------------------------------------------------------------------

def _unwrapped(source: Source) -> Source:
    """The source without what training in parallel (`module.`) and compiling (`_orig_mod.`) put into its names."""
    plain = {_WRAPPERS.sub("", name): entry for name, entry in source.entries.items()}
    return replace(source, entries=plain) if len(plain) == len(source.entries) else source


def _plain(source: Source) -> Source:
    """The source with weights that are numbers times a scale as their products, if it has a UNet at all; what else it
    may be is told by its names."""
    firsts = {f"{prefix}input_blocks.0.0.weight" for prefix in UNET_PLACES} | {"conv_in.weight"}
    return source if firsts.isdisjoint(source.entries) else unscaled(source)


def _of_file(source: Source) -> ModelLayout:
    names = source.entries.keys()
    unet, used = _unet(source)
    if not unet:
        raise AtelierError(f"{source.path} is not a Stable Diffusion checkpoint: it has no UNet.{what_else(names)}",
                           "Choose a Stable Diffusion 1, 2 or XL model.")
    family = family_of_shapes(_shapes(unet))
    parts = {"unet": unet}
    stored_vae = {name: tensor for name, tensor in _below(source, VAE_PREFIX).items()
                  if not name.startswith(VAE_SURPLUS)}
    if stored_vae:
        vae = {original_attention(name): tensor for name, tensor in stored_vae.items()}
        parts["vae"] = to_diffusers(original_table("vae", vae.keys(), family), vae, "vae")
        used |= {VAE_PREFIX + name for name in stored_vae}
    for spec in family.text_encoders:
        prefix = next((p for p in text_prefixes(family, spec.folder) if any(n.startswith(p) for n in names)), None)
        if prefix is not None:
            parts[spec.folder], read = _text(source, prefix, spec, family)
            used |= read
    components = {name: Component(name, tensors, component_config(name, _shapes(tensors), family))
                  for name, tensors in parts.items()}
    return ModelLayout(
        source=source, family=family, components=components, unused=tuple(name for name in names if name not in used),
        ema=any(name.startswith(EMA_PREFIX) for name in names))


def _unet(source: Source) -> tuple[dict[str, LazyTensor], set[str]]:
    """The UNet under diffusers names, and its names in the file. A file may hold a bare UNet in either layout."""
    for prefix in UNET_PLACES:
        stored = _below(source, prefix)
        if "input_blocks.0.0.weight" in stored:
            table = unet_table(UNetLayout.from_original(stored.keys()))
            return to_diffusers(table, stored, "unet"), {prefix + name for name in stored}
    stored = _below(source, "")
    if "conv_in.weight" in stored and "down_blocks.0.resnets.0.norm1.weight" in stored:
        return stored, set(stored)
    return {}, set()


def _text(source: Source, prefix: str, spec: TextEncoderSpec, family: Family) -> tuple[dict[str, LazyTensor], set[str]]:
    """The tensors of a text encoder that the family uses, and their names in the file."""
    rename = with_root if spec.architecture == "clip" else str
    stored_names = {rename(name): prefix + name for name in _below(source, prefix)
              if not name.endswith(COMPUTED) and not name.startswith(TEXT_SURPLUS)}
    stored = {name: LazyTensor.of(source.entries[full]) for name, full in stored_names.items()}
    table = original_table(spec.folder, stored.keys(), family)
    tensors = to_diffusers(table, stored, spec.folder)
    unused = _unused_text(tensors.keys(), spec)
    used = {full for name, full in stored_names.items()
            if (match := table.match_original(name)) and match.diffusers[0] not in unused}
    return {name: tensor for name, tensor in tensors.items() if name not in unused}, used


def _unused_text(names: Collection[str], spec: TextEncoderSpec) -> set[str]:
    """Tensors of a text encoder that the family does not use: SD2's last layer, and the projection of all but SDXL's
    second encoder.

    Checkpoints converted from diffusers folders already lack SD2's last layer; they are recognised by the missing
    projection.
    """
    unused = [] if spec.pooled else ["text_projection."]
    layers = layer_count(names)
    if spec.architecture == "open_clip" and spec.layer == "last" and (
            layers == OPEN_CLIP_H_LAYERS or "text_projection.weight" in names):
        unused.append(f"text_model.encoder.layers.{layers - 1}.")
    return {name for name in names if name.startswith(tuple(unused))}


def _below(source: Source, prefix: str) -> dict[str, LazyTensor]:
    return {name.removeprefix(prefix): LazyTensor.of(entry) for name, entry in source.entries.items()
            if name.startswith(prefix)}


# --- folders --------------------------------------------------------------------------------------------------------

def _of_folder(path: Path) -> ModelLayout:
    if not (path / "unet").is_dir():
        raise AtelierError(f"{path} is not a diffusers folder: it has no unet folder.",
                           "Choose the folder that holds model_index.json.")
    parts = {name: _folder_part(path, name) for name in ("unet", "vae", "text_encoder", "text_encoder_2")
             if (path / name).is_dir()}
    family = family_of_shapes(_shapes(parts["unet"]))
    components: dict[str, Component] = {}
    for name, tensors in parts.items():
        shapes = _shapes(tensors)
        config = read_component_config(path / name / "config.json", name, shapes,
                                       component_config(name, shapes, family))
        components[name] = Component(name, tensors, config)
    entries = {f"{name}.{key}": tensor.parts[0] for name, tensors in parts.items() for key, tensor in tensors.items()}
    return ModelLayout(
        source=Source(path, entries), family=family, components=components,
        scheduler=read_scheduler_config(path / "scheduler" / "scheduler_config.json"))


def _folder_part(path: Path, component: str) -> dict[str, LazyTensor]:
    """A component's tensors under the names of current diffusers."""
    rename = current_name if component == "vae" else str if component == "unet" else with_root
    source = unscaled(Source(path, component_entries(path / component)))
    return {rename(name): LazyTensor.of(entry) for name, entry in source.entries.items() if not name.endswith(COMPUTED)}


def _shapes(tensors: Mapping[str, LazyTensor]) -> dict[str, Shape]:
    return {name: tensor.shape for name, tensor in tensors.items()}
