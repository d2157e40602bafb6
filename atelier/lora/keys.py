"""A LoRA file's keys: to which layer each belongs, and what it holds of the layer's adapter."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from .input_rotation import SCALED, VECTORS
from .names import COMPONENT_PREFIX, COMPONENTS, LYCORIS_PREFIX, OTHER_NETWORK, from_kohya, known_layer
from .other_adapter import DIFFERENCE, GLORA, IA3, LOHA, LOKR, MAGNITUDE, OFT, OFT_INPUT, REPLACED

_ENDINGS = {
    "down": (".lora_down.weight", ".lora_A.weight", ".lora.down.weight", ".lora_linear_layer.down.weight",
             "_lora.down.weight"),
    "up": (".lora_up.weight", ".lora_B.weight", ".lora.up.weight", ".lora_linear_layer.up.weight", "_lora.up.weight"),
    "magnitude": (".dora_scale", ".lora_magnitude_vector", ".lora_magnitude_vector.weight"),
    "alpha": (".alpha",),
    "core": (".lora_mid.weight",),
}
"""What a key ends with, by its role. The core belongs to LyCORIS' Tucker format."""

_OTHERS: dict[str, tuple[str, str]] = {
    LOHA: ("hada_w1_a hada_w1_b hada_w2_a hada_w2_b", "hada_t1 hada_t2"),
    LOKR: ("", "lokr_w1 lokr_w1_a lokr_w1_b lokr_w2 lokr_w2_a lokr_w2_b lokr_t2"),
    OFT: ("oft_blocks", "rescale"), OFT_INPUT: (VECTORS, SCALED),
    GLORA: ("a1.weight a2.weight b1.weight b2.weight", ""),
    IA3: ("weight on_input", ""), DIFFERENCE: ("diff", ""), REPLACED: ("set_weight", ""),
}
"""Endings of the other kinds' keys, with spaces between: those that a layer needs, and those that it may have besides
alpha and magnitude. BOFT's are OFT's, in tensors of one axis more."""

_OTHER_ROLE = re.compile("|".join(rf"\.({re.escape(role)})$" for role in sorted(
    {role for needed, more in _OTHERS.values() for role in f"{needed} {more}".split()}
    | {"alpha", MAGNITUDE, "bm.weight", "diff_b", "w_norm", "b_norm"}, key=len, reverse=True)))

_ADAPTER_NAME = re.compile(r"(\.lora_(?:A|B|magnitude_vector))\.(?!weight$)[^.]+((?:\.weight)?)$")
"""PEFT's model names the adapter in its keys (`.lora_A.default.weight`); its files do not."""

_OWNERS = {**COMPONENT_PREFIX, **{f"{name}.": name for name in COMPONENTS}}
_WRAPPERS = ("base_model.model.", "model.")

_OTHER_LAYER = re.compile(rf"{OTHER_NETWORK}(\.\w+)*\.\d+(\.\w+)+")
"""A layer in a numbered block of a network that is not Stable Diffusion's, as ComfyUI names it."""

BUNDLED_PREFIX = "bundle_emb."
"""In front of the textual inversion embeddings that kohya's and OneTrainer's files may bring along."""

_OTHER_KINDS = {
    r"\.hada_(w[12]|t[12])": "LoHa", r"\.lokr_(w[12]|t2)": "LoKr", r"\.b?oft_": "OFT", r"\.lora_mid\.": "Tucker format",
    r"\.on_input$": "IA3", r"\.[ab][12]\.weight$": "GLoRA", r"\.diff(_b)?$|\.set_weight$": "whole differences",
    r"\.[wb]_norm$": "norms", rf"^{re.escape(BUNDLED_PREFIX)}": "bundled embeddings",
    r"^emb_params$|^string_to_param|^clip_[lg]$": "a textual inversion embedding",
    r"lora_controlnet|^control_model\.": "a ControlNet LoRA",
    r"double_blocks|single_blocks|single_transformer_blocks": "a LoRA of Flux",
    r"joint_blocks|(^|[._])transformer[._]transformer_blocks": "a LoRA of a transformer model such as SD3",
}
"""What else such files hold, by a regular expression on their keys: named where it cannot be used."""


def other_kinds(keys: Iterable[str]) -> str:
    """What keys that are no part of an adapter are, in words ("LoHa, norms"); empty where they are not known."""
    found = {name for key in keys for pattern, name in _OTHER_KINDS.items() if re.search(pattern, key)}
    return ", ".join(sorted(found))


def whole_adapters(keys: Iterable[str], component: str) -> dict[str, dict[str, str]]:
    """The keys of each complete adapter: by layer name, then by role ("down", "up", "magnitude", "alpha").

    Args:
        keys: Of a state dict.
        component: What keys that name none belong to.
    """
    parts: dict[str, dict[str, str]] = {}
    for key in keys:
        name, role = _split(key, component)
        if name is not None:
            parts.setdefault(name, {})[role] = key
    return {name: roles for name, roles in parts.items() if {"down", "up"} <= roles.keys()}


def whole_others(keys: Iterable[str], component: str) -> dict[str, tuple[str, dict[str, str]]]:
    """The keys of each complete adapter of another kind: by layer name the kind, and the keys by their endings
    ("hada_w1_a", "alpha", "dora_scale").

    A change of a layer's bias stands under the layer's name with `.bias` behind it. BOFT is found as OFT.

    Args:
        keys: Of a state dict.
        component: What keys that name none belong to.
    """
    parts: dict[str, dict[str, str]] = {}
    for key in keys:
        match = _OTHER_ROLE.search(key)
        name = _layer_name(key[:match.start()], component, norms=True) if match else None
        if match and name is not None:
            role = match[0][1:]
            parts.setdefault(f"{name}.bias" if role in ("diff_b", "b_norm") else name, {})[role] = key
    found = {name: (kind, roles) for name, roles in parts.items() if (kind := _kind_of(roles.keys()))}
    # Alpha and magnitude of a whole difference are none of its own.
    return {name: (kind, {role: key for role, key in roles.items() if kind not in (DIFFERENCE, REPLACED)
                          or role not in ("alpha", MAGNITUDE)}) for name, (kind, roles) in found.items()}


def _kind_of(roles: Collection[str]) -> str:
    """The kind that these roles are all of; empty where they are of none."""
    own = set(roles) - {"alpha", MAGNITUDE}
    if len(own) == 1 and own <= {"diff_b", "w_norm", "b_norm"}:
        return DIFFERENCE
    for kind, (needed, more) in _OTHERS.items():
        if own and set(needed.split()) <= own <= {*needed.split(), *more.split()}:
            sides = (("lokr_w1", "lokr_w1_a", "lokr_w1_b"), ("lokr_w2", "lokr_w2_a", "lokr_w2_b"))
            if kind == LOKR and not all((whole in own) != ({a, b} <= own) for whole, a, b in sides):
                return ""
            return "" if kind == LOHA and len(own & {"hada_t1", "hada_t2"}) == 1 else kind
    return ""


def _split(key: str, component: str) -> tuple[str | None, str]:
    key = _ADAPTER_NAME.sub(r"\1\2", key)
    for role, endings in _ENDINGS.items():
        for ending in endings:
            if key.endswith(ending):
                return _layer_name(key[:-len(ending)], component), role
    return None, ""


def _layer_name(stem: str, component: str, *, norms: bool = False) -> str | None:
    """The layer of a key without its ending, whichever prefixes stand before the path: programs put several in a row
    (`unet.base_model.model.…`, `unet.unet.…`), or none."""
    if stem.startswith(("lora_", LYCORIS_PREFIX)):
        return from_kohya(stem, norms=norms)
    if _OTHER_LAYER.fullmatch(stem) and known_layer("unet", stem.split(".", 1)[1]) is None:
        return stem
    found = True
    while found:
        found = False
        for prefix, owner in (*_OWNERS.items(), *((wrapper, "") for wrapper in _WRAPPERS)):
            if stem.startswith(prefix):
                stem, component, found = stem[len(prefix):], owner or component, True
    return known_layer(component, stem, norms=norms)
