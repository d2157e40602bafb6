"""What a model file or folder is made of, in diffusers' terms: its family, its components, their tensors and
configurations.

Everything is derived from names and shapes; there is no list of known models. One tensor at most is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint.folder import component_entries, read_json
from ..checkpoint.source import Source, open_file
from ..errors import AtelierError
from ..families import FAMILIES, Family, TextEncoderSpec
from .expected import check_whole
from .keys import KeyTable, Shape
from .recipe import Recipe, to_diffusers
from .text import clip_table, layer_count, open_clip_table, text_config
from .unet import TIME_IDS_WIDTH, UNetLayout, unet_config, unet_table
from .vae import current_name, vae_config, vae_table

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
EMA_PREFIX = "model_ema."

TEXT_PREFIXES: tuple[tuple[str, str, str], ...] = (
    # prefix in the checkpoint, architecture, what to put before the rest of the name
    ("conditioner.embedders.0.transformer.text_model.", "clip", "text_model."),
    ("conditioner.embedders.0.transformer.", "clip", "text_model."),
    ("conditioner.embedders.1.model.", "open_clip", ""),
    ("conditioner.embedders.0.model.", "open_clip", ""),
    ("cond_stage_model.transformer.text_model.", "clip", "text_model."),
    ("cond_stage_model.transformer.", "clip", "text_model."),
    ("cond_stage_model.model.", "open_clip", ""),
)
"""Where checkpoints keep their text encoders. Those written from transformers 5's models lack `text_model.`."""

COMPUTED = ("embeddings.position_ids", "logit_scale")
"""Tensors that no model of ours reads: a running number that every reader computes, and the scale of CLIP's training
loss."""


OPEN_CLIP_H_LAYERS = 24
"""Layers of OpenCLIP ViT-H as it was trained; SD2 uses all but the last."""


@dataclass(frozen=True)
class Component:
    """One part of a model: its tensors under diffusers names and the configuration that builds it."""

    folder: str
    tensors: Mapping[str, Recipe]
    config: Mapping[str, Any]

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return sum(recipe.count for recipe in self.tensors.values())


@dataclass(frozen=True)
class Anatomy:
    """A model taken apart. Components are keyed by diffusers' folder names, the UNet first."""

    source: Source
    family: Family
    components: Mapping[str, Component]
    unused: tuple[str, ...] = ()
    """Stored tensors that belong to no component: EMA copies, optimiser states, constants."""
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


def read_anatomy(path: Path) -> Anatomy:
    """Take a single file or a diffusers folder apart.

    Raises:
        AtelierError: the path is no Stable Diffusion model; the message says what it lacks.
    """
    if path.is_dir():
        return _of_folder(path)
    source = open_file(path)
    names = source.entries.keys()
    unet, used = _unet_tensors(source)
    if not unet:
        raise AtelierError(f"{path} is not a Stable Diffusion checkpoint: it has no UNet.{_what_else(names)}",
                           "Choose a Stable Diffusion 1, 2 or XL model.")
    family = family_of_shapes(_shapes(unet))
    parts = {"unet": unet}
    stored_vae = _below(source, VAE_PREFIX)
    if stored_vae:
        # Training leaves its loss network beside the VAE.
        stored_vae = {name: recipe for name, recipe in stored_vae.items() if not name.startswith("loss.")}
        used |= {VAE_PREFIX + name for name in stored_vae}
        parts["vae"] = to_diffusers(vae_table(stored_vae.keys()), stored_vae, "VAE")
    for spec, prefix, lead in _text_places(names, family):
        stored = {lead + name: recipe for name, recipe in _below(source, prefix).items() if not _computed(name)}
        table = _text_table(spec, stored.keys())
        made = to_diffusers(table, stored, spec.folder)
        left = _unused_text(made, spec)
        parts[spec.folder] = {name: recipe for name, recipe in made.items() if name not in left}
        used |= {prefix + name.removeprefix(lead) for name in stored
                 if (match := table.match_original(name)) and match.diffusers[0] not in left}
    components = {name: Component(name, tensors, component_config(name, _shapes(tensors), family))
                  for name, tensors in parts.items()}
    return Anatomy(source, family, components, unused=tuple(name for name in names if name not in used),
                   ema=any(name.startswith(EMA_PREFIX) for name in names))


def family_of_shapes(shapes: Mapping[str, Shape]) -> Family:
    """The family a UNet belongs to, by its conditioning and its input.

    Raises:
        AtelierError: it is none of ours.
    """
    context = next((shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), 0)
    linear = any(name.endswith("proj_in.weight") and len(shape) == 2 for name, shape in shapes.items())
    vector = shapes.get("add_embedding.linear_1.weight", (0, 0))[1]
    channels = shapes.get("conv_in.weight", (0, 0))[1]
    if "class_embedding.weight" in shapes:
        base = "x4-upscaler"
    elif vector:
        # The refiner's vector is the pooled text and five numbers, SDXL's has six; the refiner reads the same text
        # twice.
        base = "sdxl-refiner" if vector - 5 * TIME_IDS_WIDTH == context else "sdxl"
    else:
        base = "sd2" if linear else "sd1"
    for key in (base, f"{base}-inpainting"):
        if key in FAMILIES and FAMILIES[key].in_channels == channels:
            return FAMILIES[key]
    raise AtelierError(f"This UNet takes {channels} input channels, as no kind of {FAMILIES[base].name} does.",
                       "Choose a text-to-image, inpainting or x4 upscaling model.")


def component_config(name: str, shapes: Mapping[str, Shape], family: Family) -> dict[str, Any]:
    """The diffusers configuration of a component, from its shapes.

    Raises:
        AtelierError: no model of this family can have these shapes, or a tensor is missing.
    """
    if name == "unet":
        # SD2's attention overflows in half precision.
        config = unet_config(shapes, sample_size=family.native_size // 8, upcast=family.key.startswith("sd2"))
    elif name == "vae":
        config = vae_config(shapes, family.latent_scale, sample_size=family.native_size,
                            force_upcast=family.key.startswith("sdxl"))
    else:
        config = text_config(shapes, next(s.architecture for s in family.text_encoders if s.folder == name))
    check_whole(name, shapes, config)
    return config


# --- single files ---------------------------------------------------------------------------------------------------

def _unet_tensors(source: Source) -> tuple[dict[str, Recipe], set[str]]:
    """The UNet under diffusers names, and which stored names it took; a file may also hold a bare UNet in either
    layout."""
    for prefix in (UNET_PREFIX, ""):
        stored = _below(source, prefix)
        if "input_blocks.0.0.weight" in stored:
            table = unet_table(UNetLayout.from_original(stored.keys()))
            return to_diffusers(table, stored, "UNet"), {prefix + name for name in stored}
    stored = _below(source, "")
    if "conv_in.weight" in stored and "down_blocks.0.resnets.0.norm1.weight" in stored:
        return stored, set(stored)
    return {}, set()


def _text_places(names: Collection[str], family: Family) -> Iterator[tuple[TextEncoderSpec, str, str]]:
    for spec in family.text_encoders:
        for prefix, architecture, lead in TEXT_PREFIXES:
            if architecture == spec.architecture and any(name.startswith(prefix) for name in names):
                yield spec, prefix, lead
                break


def _text_table(spec: TextEncoderSpec, names: Collection[str]) -> KeyTable:
    return clip_table() if spec.architecture == "clip" else open_clip_table(layer_count(names))


def _unused_text(names: Collection[str], spec: TextEncoderSpec) -> set[str]:
    """What the family does not use of a text encoder: SD2 skips the last layer, and only SDXL's second one projects.

    Checkpoints made of diffusers folders lack SD2's last layer already; they lack the projection, too, which tells.
    """
    unused = [] if spec.pooled else ["text_projection."]
    layers = layer_count(names)
    if spec.architecture == "open_clip" and spec.layer == "last" and (
            layers == OPEN_CLIP_H_LAYERS or "text_projection.weight" in names):
        unused.append(f"text_model.encoder.layers.{layers - 1}.")
    return {name for name in names if name.startswith(tuple(unused))}


def _below(source: Source, prefix: str) -> dict[str, Recipe]:
    return {name.removeprefix(prefix): Recipe.of(entry) for name, entry in source.entries.items()
            if name.startswith(prefix)}


def _computed(name: str) -> bool:
    return name.endswith(COMPUTED)


def _what_else(names: Collection[str]) -> str:
    if any("lora_" in name or ".lora" in name for name in names):
        return " It looks like a LoRA."
    if any("decoder.conv_in" in name or "decoder.up" in name for name in names):
        return " It looks like a VAE."
    if any("double_blocks" in name or "joint_blocks" in name for name in names):
        return " It looks like a transformer model such as Flux or SD3."
    return ""


# --- folders --------------------------------------------------------------------------------------------------------

def _of_folder(path: Path) -> Anatomy:
    if not (path / "unet").is_dir():
        raise AtelierError(f"{path} is not a diffusers folder: it has no unet folder.",
                           "Choose the folder that holds model_index.json.")
    parts: dict[str, dict[str, Recipe]] = {}
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        folder = path / name
        if folder.is_dir():
            parts[name] = {_folder_name(key, name): Recipe.of(entry) for key, entry in component_entries(folder).items()
                           if not _computed(key)}
    family = family_of_shapes(_shapes(parts["unet"]))
    components: dict[str, Component] = {}
    for name, tensors in parts.items():
        derived = component_config(name, _shapes(tensors), family)
        stated = read_json(path / name / "config.json") if (path / name / "config.json").is_file() else {}
        components[name] = Component(name, tensors, derived | stated)
    scheduler = path / "scheduler" / "scheduler_config.json"
    entries = {f"{name}.{key}": recipe.parts[0] for name, tensors in parts.items() for key, recipe in tensors.items()}
    return Anatomy(Source(path, entries), family, components,
                   scheduler=read_json(scheduler) if scheduler.is_file() else {})


def _folder_name(name: str, component: str) -> str:
    """Today's name of a tensor in a folder: text encoders written by transformers 5 lack `text_model.`."""
    if component == "vae":
        return current_name(name)
    if component.startswith("text") and not name.startswith(("text_model.", "text_projection")):
        return f"text_model.{name}"
    return name


def _shapes(tensors: Mapping[str, Recipe]) -> dict[str, Shape]:
    return {name: recipe.shape for name, recipe in tensors.items()}
