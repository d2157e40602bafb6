"""LoRA state dicts: the neutral `LoraWeights` to and from the key formats that programs read.

kohya      `<kohya name>.lora_down.weight`, `.lora_up.weight`, `.alpha`, `.dora_scale`: ComfyUI, A1111, Forge. Layers
           of SDXL's UNet are named as in checkpoints, those of SD1 and SD2 as by diffusers. Networks other than Stable
           Diffusion's: `diffusion_model.<path>.lora_A.weight`, `.lora_B.weight`, `.alpha`, as all programs write them.
           Other kinds: LyCORIS' endings (`.hada_w1_a`, `.lokr_w1`, `.diff`, …) behind the same names
diffusers  `<component>.<path>.lora_A.weight`, `.lora_B.weight`: has no place for alpha, so alpha / r is folded into B
peft       `base_model.model.<path>.lora_A.weight`: one component; alpha stands in `adapter_config.json`

Read besides: every naming that `atelier.lora.keys` knows, as ComfyUI's own (`diffusion_model.<path>.lora_up.weight`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version

import torch
from torch import Tensor

from ..errors import AtelierError
from .keys import whole_adapters, whole_others
from .names import of_other_network, to_kohya, with_text_model
from .other_adapter import BOFT, OFT, OtherAdapter
from .weights import Adapter, LoraModule, LoraWeights, PlainWeights

_PEFT_PREFIX = "base_model.model."

_FIT_HALF = (torch.float8_e4m3fn, torch.float8_e5m2)


def kohya_state(weights: LoraWeights, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """`weights` in kohya keys, alphas included, on the CPU."""
    sdxl = is_sdxl(weights)
    state: dict[str, Tensor] = {}
    for name, module in weights.items():
        other = of_other_network(name)
        layer = name.removesuffix(".bias")
        key = layer if other else to_kohya(with_text_model(layer), sdxl=sdxl)
        if isinstance(module, OtherAdapter):
            state |= {f"{key}.{role}": _plain(tensor, dtype) for role, tensor in module.tensors.items()}
            if module.alpha is not None:
                state[f"{key}.alpha"] = torch.tensor(module.alpha, dtype=torch.float32)
            continue
        down, up = ("lora_A", "lora_B") if other else ("lora_down", "lora_up")
        state[f"{key}.{down}.weight"] = _plain(module.down, dtype)
        state[f"{key}.{up}.weight"] = _plain(module.up, dtype)
        state[f"{key}.alpha"] = torch.tensor(module.alpha, dtype=torch.float32)
        if module.magnitude is not None:
            magnitude = _plain(module.magnitude, dtype)
            axes = [1] * (module.down.dim() - 1)
            state[f"{key}.dora_scale"] = (magnitude.reshape(1, -1, *axes[1:]) if module.by_input else
                                          magnitude.reshape(-1, *axes))
    return state


def diffusers_state(weights: PlainWeights, dtype: torch.dtype) -> dict[str, Tensor]:
    """`weights`, by diffusers' layer names, as its `save_lora_weights` names them; alpha / r is folded into B."""
    state: dict[str, Tensor] = {}
    for name, module in weights.items():
        key = with_text_model(name)
        state[f"{key}.lora_A.weight"] = _plain(module.down, dtype)
        state[f"{key}.lora_B.weight"] = _plain(module.up.float() * (module.alpha / module.rank), dtype)
        if module.magnitude is not None:
            state[f"{key}.lora_magnitude_vector"] = _plain(module.magnitude.flatten(), dtype)
    return state


def peft_state(weights: PlainWeights, component: str, dtype: torch.dtype) -> dict[str, Tensor]:
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
    weights: dict[str, Adapter] = {name: _other(name, kind, keys, state, origin)
                                   for name, (kind, keys) in whole_others(state, component).items()}
    for name, keys in whole_adapters(state, component).items():
        part = {role: _computable(state[key], key, origin) for role, key in keys.items()}
        down, up = part["down"], part["up"]
        if "core" in part:
            down = _with_core(down, part["core"], keys["core"], origin)
            up = up.reshape(*up.shape[:2], *[1] * (down.dim() - 2))
        if not len(down):
            continue  # of rank 0: other programs write it for layers that they were told to leave alone
        if up.dim() != down.dim() or down.dim() not in (2, 4) or up[0].numel() != down.shape[0]:
            raise AtelierError(f"{origin}: the layer {name} has matrices of shapes {list(down.shape)} and "
                               f"{list(up.shape)}, which do not fit together.", "Download or train it again.")
        if "alpha" in part and part["alpha"].numel() != 1:
            raise AtelierError(f"{origin}: {keys['alpha']} holds {part['alpha'].numel()} numbers, not one.",
                               "Download or train it again.")
        magnitude = part.get("magnitude")
        by_input = magnitude is not None and keys["magnitude"].endswith(".dora_scale") and _is_row(magnitude, down)
        if magnitude is not None and not by_input and magnitude.numel() != up.shape[0]:
            raise AtelierError(f"{origin}: {keys['magnitude']} holds {magnitude.numel()} numbers for {up.shape[0]} "
                               f"output and {down.shape[1]} input channels.", "Download or train it again.")
        own = part["alpha"].item() if "alpha" in part else alpha if alpha is not None else down.shape[0]
        weights[name] = LoraModule(down, up, float(own), magnitude, by_input)
    return weights


def _other(name: str, kind: str, keys: Mapping[str, str], state: Mapping[str, Tensor], origin: str) -> OtherAdapter:
    part = {role: _computable(state[key], key, origin) for role, key in keys.items()}
    alpha = part.pop("alpha", None)
    if kind == OFT and part["oft_blocks"].dim() == 4:
        kind = BOFT
    module = OtherAdapter(kind, part, None if alpha is None or alpha.numel() != 1 else float(alpha))
    problem = module.problem() if alpha is None or alpha.numel() == 1 else f"alpha holds {alpha.numel()} numbers"
    if problem:
        shapes = ", ".join(f"{role} {list(tensor.shape)}" for role, tensor in part.items())
        raise AtelierError(f"{origin}: the tensors of the layer {name} ({kind}: {shapes}) do not fit together "
                           f"({problem}).", "Download or train it again.")
    return module.without_core()


def _with_core(down: Tensor, core: Tensor, key: str, origin: str) -> Tensor:
    """A of the plain adapter that is one in Tucker's format: its core times its A."""
    if core.dim() < 3 or core.shape[1] != down.shape[0]:
        raise AtelierError(f"{origin}: {key} is of shape {list(core.shape)}, which does not fit the layer's "
                           f"{list(down.shape)}.", "Download or train it again.")
    return torch.einsum("rj...,ji->ri...", core.float(), down.float().flatten(1)).to(down.dtype)


def _is_row(magnitude: Tensor, down: Tensor) -> bool:
    """Whether DoRA's magnitude is LyCORIS' [1, in, …], which scales input channels, and not [out, 1, …]."""
    return magnitude.dim() > 1 and magnitude.shape[0] == 1 and magnitude.numel() == down.shape[1]


def _computable(tensor: Tensor, key: str, origin: str) -> Tensor:
    """The tensor in a type that torch computes in: float8 has none of its own, and fits into float16."""
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:
        return tensor.to(torch.float16 if tensor.dtype in _FIT_HALF else torch.float32)
    whole = key.endswith((".alpha", ".on_input", ".scaled_oft")) and tensor.dtype in (
        torch.bool, torch.int32, torch.int64)
    if not tensor.is_floating_point() and not whole:
        raise AtelierError(f"{origin}: {key} is of type {str(tensor.dtype).removeprefix('torch.')}.",
                           "Save the LoRA as float16, bfloat16 or float32 with the program that wrote it.")
    return tensor


def unmatched(state: Mapping[str, Tensor], *, component: str = "unet") -> list[str]:
    """The keys of `state` that `read_state` leaves out, in the order of the file."""
    used = {key for keys in whole_adapters(state, component).values() for key in keys.values()}
    used |= {key for _, keys in whole_others(state, component).values() for key in keys.values()}
    return [key for key in state if key not in used]


def _release(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(package).split(".")[:2])


def is_sdxl(weights: LoraWeights) -> bool:
    """Whether the layers are SDXL's: only it has a second text encoder, layers for the picture's size, and more than
    one transformer block in a row, and its cross-attention reads 2048 values a token, SD1's 768 and SD2's 1024."""
    return any(_ONLY_SDXL.match(name) or (name.endswith("attn2.to_k") and module.shape[1] == 2048)
               for name, module in weights.items())


_ONLY_SDXL = re.compile(r"text_encoder_2\.|unet\.add_embedding\.|unet\..*transformer_blocks\.[1-9]")


def _plain(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
