"""LoRA state dicts: the neutral `LoraWeights` to and from the key formats that programs read.

kohya      `<kohya name>.lora_down.weight`, `.lora_up.weight`, `.alpha`, `.dora_scale`: ComfyUI, A1111, Forge. Layers
           of SDXL's UNet are named as in checkpoints, those of other families as by diffusers
diffusers  `<component>.<path>.lora_A.weight`, `.lora_B.weight`: has no place for alpha, so alpha / r is folded into B
peft       `base_model.model.<path>.lora_A.weight`: one component; alpha stands in `adapter_config.json`

Read besides: kohya's names behind checkpoints' layers, ComfyUI's own (`diffusion_model.<path>.lora_up.weight`), and
those of diffusers before 0.22 (`unet.….attn1.processor.to_q_lora.up.weight`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version

import torch
from torch import Tensor

from ..errors import AtelierError
from .names import COMPONENTS, from_comfy, from_kohya, known_layer, to_kohya, with_text_model
from .weights import LoraModule, LoraWeights

_ENDINGS = {
    "down": (".lora_down.weight", ".lora_A.weight", ".lora.down.weight", ".lora_linear_layer.down.weight",
             "_lora.down.weight"),
    "up": (".lora_up.weight", ".lora_B.weight", ".lora.up.weight", ".lora_linear_layer.up.weight", "_lora.up.weight"),
    "magnitude": (".dora_scale", ".lora_magnitude_vector", ".lora_magnitude_vector.weight"),
    "alpha": (".alpha",),
    "core": (".lora_mid.weight",),
}
"""What a key ends with, by its role. A module with a core (LyCORIS' Tucker format) is no product of two matrices."""

_PEFT_PREFIX = "base_model.model."


def kohya_state(weights: LoraWeights, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """`weights` in kohya keys, alphas included, on the CPU."""
    sdxl = is_sdxl(weights)
    state: dict[str, Tensor] = {}
    for name, module in weights.items():
        key = to_kohya(with_text_model(name), sdxl=sdxl)
        state[f"{key}.lora_down.weight"] = _plain(module.down, dtype)
        state[f"{key}.lora_up.weight"] = _plain(module.up, dtype)
        state[f"{key}.alpha"] = torch.tensor(module.alpha, dtype=torch.float32)
        if module.magnitude is not None:
            magnitude = _plain(module.magnitude, dtype)
            state[f"{key}.dora_scale"] = magnitude.reshape(-1, *[1] * (module.down.dim() - 1))
    return state


def diffusers_state(weights: LoraWeights, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """`weights` as diffusers' `save_lora_weights` names them; alpha / r is folded into B."""
    state: dict[str, Tensor] = {}
    for name, module in weights.items():
        key = with_text_model(name)
        state[f"{key}.lora_A.weight"] = _plain(module.down, dtype)
        state[f"{key}.lora_B.weight"] = _plain(module.up.float() * (module.alpha / module.rank), dtype)
        if module.magnitude is not None:
            state[f"{key}.lora_magnitude_vector"] = _plain(module.magnitude.flatten(), dtype)
    return state


def peft_state(weights: LoraWeights, component: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """One component's adapters as PEFT's `adapter_model.safetensors` names them."""
    state: dict[str, Tensor] = {}
    for name, module in weights.items():
        if name.startswith(component + "."):
            key = _PEFT_PREFIX + peft_path(with_text_model(name))
            state[f"{key}.lora_A.weight"] = _plain(module.down, dtype)
            state[f"{key}.lora_B.weight"] = _plain(module.up, dtype)
            if module.magnitude is not None:
                magnitude = module.magnitude.flatten()
                # PEFT shapes a convolution's magnitude like its output.
                shape = (1, -1, 1, 1) if module.down.dim() == 4 else (-1,)
                state[f"{key}.lora_magnitude_vector"] = _plain(magnitude.reshape(shape), dtype)
    return state


def peft_path(name: str) -> str:
    """A layer's module path in the model as the installed transformers builds it, which PEFT goes by."""
    component, path = name.split(".", 1)
    if component == "text_encoder" and _release("transformers") >= (5, 6):
        return path.removeprefix("text_model.")
    return path


def read_state(state: Mapping[str, Tensor], *, component: str = "unet", alpha: float | None = None,
               origin: str = "The LoRA") -> LoraWeights:
    """Read a state dict of any of the formats above.

    Args:
        state: Tensors by key. Keys that are no part of a whole adapter are left out; `unmatched` lists them.
        component: What a file without component names (PEFT) belongs to.
        alpha: The alpha of a file that holds none (PEFT's `lora_alpha`); otherwise an absent alpha means scale 1.
        origin: Where it comes from, for messages.

    Raises:
        AtelierError: the two matrices of an adapter do not fit together, its alpha is not one number, or its magnitude
            not one an output channel.
    """
    weights: dict[str, LoraModule] = {}
    for name, keys in _whole(state, component).items():
        part = {role: state[key] for role, key in keys.items()}
        down, up = part["down"], part["up"]
        if up.dim() != down.dim() or down.dim() not in (2, 4) or up[0].numel() != down.shape[0]:
            raise AtelierError(f"{origin}: the layer {name} has matrices of shapes {list(down.shape)} and "
                               f"{list(up.shape)}, which do not fit together.", "Download or train it again.")
        if "alpha" in part and part["alpha"].numel() != 1:
            raise AtelierError(f"{origin}: {keys['alpha']} holds {part['alpha'].numel()} numbers, not one.",
                               "Download or train it again.")
        if "magnitude" in part and part["magnitude"].numel() != up.shape[0]:
            raise AtelierError(f"{origin}: {keys['magnitude']} holds {part['magnitude'].numel()} numbers for "
                               f"{up.shape[0]} output channels.", "Use a DoRA that scales output channels.")
        own = part["alpha"].item() if "alpha" in part else alpha if alpha is not None else down.shape[0]
        weights[name] = LoraModule(down, up, float(own), part.get("magnitude"))
    return weights


def unmatched(state: Mapping[str, Tensor], *, component: str = "unet") -> list[str]:
    """The keys of `state` that `read_state` leaves out, in the order of the file."""
    used = {key for keys in _whole(state, component).values() for key in keys.values()}
    return [key for key in state if key not in used]


def _whole(state: Mapping[str, Tensor], component: str) -> dict[str, dict[str, str]]:
    """The keys of each complete adapter: by layer name, then by role."""
    parts: dict[str, dict[str, str]] = {}
    for key in state:
        name, role = _split(key, component)
        if name is not None:
            parts.setdefault(name, {})[role] = key
    return {name: keys for name, keys in parts.items() if {"down", "up"} <= keys.keys() and "core" not in keys}


def _split(key: str, component: str) -> tuple[str | None, str]:
    for role, endings in _ENDINGS.items():
        for ending in endings:
            if key.endswith(ending):
                return _layer_name(key[:-len(ending)], component), role
    return None, ""


def _layer_name(stem: str, component: str) -> str | None:
    if stem.startswith("lora_"):
        return from_kohya(stem)
    if stem.startswith(_PEFT_PREFIX):
        return known_layer(component, stem[len(_PEFT_PREFIX):])
    first, _, path = stem.partition(".")
    if first not in COMPONENTS:
        return from_comfy(stem)
    if ".processor." in path:  # diffusers before 0.22, whose attention processors held the LoRA
        path = path.replace(".processor.", ".").replace("to_out", "to_out.0")
    return known_layer(first, path)


def _release(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(package).split(".")[:2])


def is_sdxl(weights: LoraWeights) -> bool:
    """Whether the layers are SDXL's: only it has a second text encoder, layers for the picture's size, and more than
    one transformer block in a row, and its cross-attention reads 2048 values a token, SD1's 768 and SD2's 1024."""
    return any(_ONLY_SDXL.match(name) or (name.endswith("attn2.to_k") and module.down.shape[1] == 2048)
               for name, module in weights.items())


_ONLY_SDXL = re.compile(r"text_encoder_2\.|unet\.add_embedding\.|unet\..*transformer_blocks\.[1-9]")


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype).contiguous()
