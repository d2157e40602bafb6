"""Layers of diffusion transformers, from ComfyUI's names (those of the published files) to diffusers'.

diffusers keeps queries, keys and values in layers of their own where most published files have them in one. Of an
adapter B·A on such a layer each part gets A and its own rows of B.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from ..errors import AtelierError
from .names import OTHER_NETWORK, of_other_network
from .weights import LoraModule, PlainWeights

COMPONENT = "transformer"
"""Diffusers' name of the network."""

_QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
_ADDED = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")


@dataclass(frozen=True)
class Network:
    """How one kind of network is named in diffusers."""

    title: str
    """What it is called, for messages."""
    bases: frozenset[str]
    """What `ss_base_model_version` calls it in our files."""
    blocks: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]]
    """By a block's name here, with # for its number: its name in diffusers, and its layers' names there, several where
    the layer is one here."""
    rows: Mapping[str, float] = field(default_factory=dict)
    """Outputs for each input of layers by which it is told from others of the same names."""

    def targets(self, path: str) -> tuple[str, ...]:
        """Diffusers' paths of a layer; empty where it is not known."""
        for block, (other, layers) in self.blocks.items():
            found = re.fullmatch(re.escape(block).replace(r"\#", r"(\d+)") + r"\.(.+)", path)
            if found:
                number, layer = found.groups()
                return tuple(f"{other.replace('#', number)}.{name}" for name in layers.get(layer, ()))
        return ()

    def fits(self, weights: PlainWeights) -> bool:
        """Whether all layers are its own, by name and shape."""
        for name, module in weights.items():
            path = name.split(".", 1)[1]
            ratio = next((ratio for layer, ratio in self.rows.items() if path.endswith(f".{layer}")), None)
            inputs, outputs = module.down.shape[1], module.up.shape[0]
            if not self.targets(path) or (ratio and abs(outputs / inputs - ratio) > 0.05):
                return False
        return True


def _same(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names}


_FLUX_ATTENTION = {"img_attn.qkv": _QKV, "img_attn.proj": ("attn.to_out.0",),
                   "txt_attn.qkv": _ADDED, "txt_attn.proj": ("attn.to_add_out",)}
_Z_IMAGE = {"attention.qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
            "attention.out": ("attention.to_out.0",), "adaLN_modulation.0": ("adaLN_modulation.0",),
            **_same("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")}
_LUMINA = {"attention.qkv": _QKV, "attention.out": ("attn.to_out.0",), "adaLN_modulation.1": ("norm1.linear",),
           **{f"feed_forward.w{number}": (f"feed_forward.linear_{number}",) for number in (1, 2, 3)}}
_KREA = {"attn.wq": ("attn.to_q",), "attn.wk": ("attn.to_k",), "attn.wv": ("attn.to_v",), "attn.wo": ("attn.to_out.0",),
         "attn.gate": ("attn.to_gate",), "mlp.gate": ("ff.gate",), "mlp.up": ("ff.up",), "mlp.down": ("ff.down",)}
_ANIMA = {**{f"{here}.{side}_proj": (f"{there}.to_{side}",)
             for here, there in (("self_attn", "attn1"), ("cross_attn", "attn2")) for side in "qkv"},
          "self_attn.output_proj": ("attn1.to_out.0",), "cross_attn.output_proj": ("attn2.to_out.0",),
          "mlp.layer1": ("ff.net.0.proj",), "mlp.layer2": ("ff.net.2",),
          **{f"adaln_modulation_{part}.{number}": (f"norm{place}.linear_{number}",)
             for place, part in enumerate(("self_attn", "cross_attn", "mlp"), 1) for number in (1, 2)}}

NETWORKS = (
    Network("Flux, Chroma", frozenset({"flux", "chroma"}), {
        "double_blocks.#": ("transformer_blocks.#", {
            **_FLUX_ATTENTION, "img_mlp.0": ("ff.net.0.proj",), "img_mlp.2": ("ff.net.2",),
            "txt_mlp.0": ("ff_context.net.0.proj",), "txt_mlp.2": ("ff_context.net.2",),
            "img_mod.lin": ("norm1.linear",), "txt_mod.lin": ("norm1_context.linear",)}),
        "single_blocks.#": ("single_transformer_blocks.#", {
            "linear1": (*_QKV, "proj_mlp"), "linear2": ("proj_out",), "modulation.lin": ("norm.linear",)}),
        "distilled_guidance_layer.layers.#": ("distilled_guidance_layer.layers.#", {
            "in_layer": ("linear_1",), "out_layer": ("linear_2",)}),
    }, {"img_mlp.0": 4, "txt_mlp.0": 4, "linear1": 7}),
    Network("Flux.2", frozenset({"flux2"}), {
        "double_blocks.#": ("transformer_blocks.#", {
            **_FLUX_ATTENTION, "img_mlp.0": ("ff.linear_in",), "img_mlp.2": ("ff.linear_out",),
            "txt_mlp.0": ("ff_context.linear_in",), "txt_mlp.2": ("ff_context.linear_out",)}),
        "single_blocks.#": ("single_transformer_blocks.#", {
            "linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)}),
    }, {"img_mlp.0": 6, "txt_mlp.0": 6, "linear1": 9}),
    Network("Z-Image", frozenset({"lumina2"}),
            {f"{block}.#": (f"{block}.#", _Z_IMAGE) for block in ("layers", "noise_refiner", "context_refiner")},
            {"attention.qkv": 3, "feed_forward.w1": 8 / 3}),
    Network("Lumina 2", frozenset({"lumina2"}),
            {f"{block}.#": (f"{block}.#", _LUMINA) for block in ("layers", "noise_refiner", "context_refiner")},
            {"attention.qkv": 5 / 3, "feed_forward.w1": 4}),
    Network("Qwen-Image", frozenset({"qwen_image"}), {"transformer_blocks.#": ("transformer_blocks.#", _same(
        *_QKV, *_ADDED, "attn.to_out.0", "attn.to_add_out", "img_mlp.net.0.proj", "img_mlp.net.2",
        "txt_mlp.net.0.proj", "txt_mlp.net.2", "img_mod.1", "txt_mod.1"))}),
    Network("SD 3", frozenset({"sd3"}), {"joint_blocks.#": ("transformer_blocks.#", {
        "x_block.attn.qkv": _QKV, "x_block.attn.proj": ("attn.to_out.0",),
        "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"), "x_block.attn2.proj": ("attn2.to_out.0",),
        "x_block.mlp.fc1": ("ff.net.0.proj",), "x_block.mlp.fc2": ("ff.net.2",),
        "x_block.adaLN_modulation.1": ("norm1.linear",), "context_block.attn.qkv": _ADDED,
        "context_block.attn.proj": ("attn.to_add_out",), "context_block.mlp.fc1": ("ff_context.net.0.proj",),
        "context_block.mlp.fc2": ("ff_context.net.2",), "context_block.adaLN_modulation.1": ("norm1_context.linear",),
    })}),
    Network("Krea 2", frozenset({"krea2"}), {
        "blocks.#": ("transformer_blocks.#", _KREA),
        **{f"txtfusion.{block}.#": (f"text_fusion.{block}.#", _KREA)
           for block in ("layerwise_blocks", "refiner_blocks")}}),
    Network("Anima", frozenset({"anima"}), {"blocks.#": ("transformer_blocks.#", _ANIMA)}),
)
"""Of several whose names are alike, the first of fitting shapes."""

_ELSEWHERE = ("lens", "mage_flow", "hunyuan_video", "cosmos_predict2", "joyimage", "kandinsky5")
"""Bases whose layers bear names of a network above, and which are others in diffusers, or not there."""


def diffusers_weights(weights: PlainWeights, base: str = "") -> PlainWeights:
    """Adapters of a network other than Stable Diffusion's by diffusers' layer names (`transformer.…`); others as they
    are.

    Args:
        weights: By ComfyUI's names (`diffusion_model.…`).
        base: `ss_base_model_version` of the file, where it has one.

    Raises:
        AtelierError: diffusers' names for this network are not known here.
    """
    others = {name: module for name, module in weights.items() if of_other_network(name)}
    if not others:
        return weights
    network = None if base in _ELSEWHERE else next(
        (network for network in NETWORKS if network.fits(others)
         and (base in network.bases or not any(base in other.bases for other in NETWORKS))), None)
    if network is None:
        raise AtelierError(
            f"The names that diffusers has for the layers of this LoRA{f' ({base})' if base else ''} are not known "
            f"here, as that of {next(iter(others))}.",
            f"Keep kohya's form, whose names are ComfyUI's. In diffusers' form can be written: Stable Diffusion, "
            f"{', '.join(network.title for network in NETWORKS)}.")
    found = {name: module for name, module in weights.items() if name not in others}
    for name, module in others.items():
        paths = network.targets(name.removeprefix(f"{OTHER_NETWORK}."))
        for path, part in zip(paths, _parts(module, paths), strict=True):
            found[f"{COMPONENT}.{path}"] = part
    return found


def _parts(module: LoraModule, paths: tuple[str, ...]) -> list[LoraModule]:
    inputs, outputs = module.down.shape[1], module.up.shape[0]
    if len(paths) == 1:
        # The last block of SD 3 has no text behind it; diffusers modulates it by scale and shift, not shift and scale.
        swapped = paths[0].endswith("norm1_context.linear") and outputs == 2 * inputs
        return [_rows(module, [outputs // 2, 0], outputs // 2)] if swapped else [module]
    # Queries are as wide as the input; keys and values share what is left, or are as wide, where there is more.
    beside = inputs if len(paths) == 4 else (outputs - inputs) // 2
    sizes = [inputs, beside, beside, outputs - inputs - 2 * beside][:len(paths)]
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return [_rows(module, [start], size) for start, size in zip(starts, sizes, strict=True)]


def _rows(module: LoraModule, starts: list[int], size: int) -> LoraModule:
    """The adapter of some of the layer's outputs; a file may not hold one tensor twice."""
    def cut(tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor[start:start + size] for start in starts])

    magnitude = None if module.magnitude is None else cut(module.magnitude.flatten())
    return replace(module, down=module.down.clone(), up=cut(module.up), magnitude=magnitude)
