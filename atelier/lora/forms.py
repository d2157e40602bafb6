"""LoRA state dicts: the neutral `LoraWeights` to and from the key forms that programs read.

kohya      `<kohya name>.lora_down.weight`, `.lora_up.weight`, `.alpha`, `.dora_scale`: ComfyUI, A1111, Forge
diffusers  `<component>.<path>.lora_A.weight`, `.lora_B.weight`: has no place for alpha, so alpha / r is folded into B
peft       `base_model.model.<path>.lora_A.weight`: one component; alpha stands in `adapter_config.json`
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .names import from_kohya, to_kohya, with_text_model
from .weights import LoraModule, LoraWeights

_DOWN = (".lora_down.weight", ".lora_A.weight", ".lora.down.weight", ".lora_linear_layer.down.weight")
_UP = (".lora_up.weight", ".lora_B.weight", ".lora.up.weight", ".lora_linear_layer.up.weight")
_MAGNITUDE = (".dora_scale", ".lora_magnitude_vector", ".lora_magnitude_vector.weight")
_PEFT_PREFIX = "base_model.model."


def kohya_state(weights: LoraWeights, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """`weights` in kohya keys, alphas included, on the CPU."""
    two = any(name.startswith("text_encoder_2.") for name in weights) or _is_sdxl(weights)
    state: dict[str, Tensor] = {}
    for name, module in weights.items():
        key = to_kohya(with_text_model(name), two_text_encoders=two)
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
        state[f"{key}.lora_B.weight"] = _plain(module.up * (module.alpha / module.rank), dtype)
        if module.magnitude is not None:
            state[f"{key}.lora_magnitude_vector"] = _plain(module.magnitude.flatten(), dtype)
    return state


def peft_state(weights: LoraWeights, component: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """One component's adapters as PEFT's `adapter_model.safetensors` names them."""
    state: dict[str, Tensor] = {}
    for name, module in weights.items():
        if name.startswith(component + "."):
            key = _PEFT_PREFIX + name[len(component) + 1:]
            state[f"{key}.lora_A.weight"] = _plain(module.down, dtype)
            state[f"{key}.lora_B.weight"] = _plain(module.up, dtype)
            if module.magnitude is not None:
                state[f"{key}.lora_magnitude_vector"] = _plain(module.magnitude.flatten(), dtype)
    return state


def read_state(state: Mapping[str, Tensor], *, component: str = "unet", alpha: float | None = None) -> LoraWeights:
    """Read a state dict of any of the forms above.

    Args:
        state: Tensors by key. Keys that name no adapter are left out; count them with `unmatched`.
        component: What a file without component names (PEFT) belongs to.
        alpha: The alpha of a file that holds none (PEFT's `lora_alpha`); otherwise an absent alpha means scale 1.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        found = _split(key, component)
        if found is not None:
            parts.setdefault(found[0], {})[found[1]] = tensor
    weights: dict[str, LoraModule] = {}
    for name, part in parts.items():
        if "down" in part and "up" in part:
            rank = part["down"].shape[0]
            own = part["alpha"].item() if "alpha" in part else alpha if alpha is not None else rank
            weights[name] = LoraModule(part["down"], part["up"], float(own), part.get("magnitude"))
    return weights


def unmatched(state: Mapping[str, Tensor], *, component: str = "unet") -> list[str]:
    """The keys of `state` that `read_state` cannot place."""
    return [key for key in state if _split(key, component) is None]


def _split(key: str, component: str) -> tuple[str, str] | None:
    for role, endings in (("down", _DOWN), ("up", _UP), ("magnitude", _MAGNITUDE), ("alpha", (".alpha",))):
        for ending in endings:
            if key.endswith(ending):
                name = _module_name(key[:-len(ending)], component)
                return None if name is None else (name, role)
    return None


def _module_name(stem: str, component: str) -> str | None:
    if stem.startswith("lora_"):
        return from_kohya(stem)
    if stem.startswith(_PEFT_PREFIX):
        return with_text_model(f"{component}.{stem[len(_PEFT_PREFIX):]}")
    if stem.split(".", 1)[0] in ("unet", "text_encoder", "text_encoder_2"):
        return with_text_model(stem)
    return None


def _is_sdxl(weights: LoraWeights) -> bool:
    # SDXL's cross-attention reads 2048 values a token, SD1's 768 and SD2's 1024.
    return any(name.endswith("attn2.to_k") and module.down.shape[1] == 2048 for name, module in weights.items())


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype).contiguous()
