"""How PEFT makes the adapters of each kind that can be trained, how they start, and what of them stands in a file.

Of the tensors of LoHa and LoKr PEFT's names and shapes are LyCORIS' and ComfyUI's. Only one thing differs: where both
sides of a LoKr are whole matrices, PEFT scales by alpha / r and the others do not; here nobody does. PEFT's OFT is
another one than theirs, and is replaced (`output_rotation`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ..lora.other_adapter import LOHA, LOKR, OFT, OtherAdapter
from ..lora.weights import Adapter, LoraModule
from .request.lora import LoraConfig

ADAPTER = "default"
"""PEFT's name of the adapter."""

_PARAMETER = re.compile(rf"(.+)\.(lora_[AB]|lora_magnitude_vector|hada_\w+|lokr_\w+|oft_blocks)\.{ADAPTER}(\.weight)?")
_KINDS = {"loha": LOHA, "lokr": LOKR, "oft": OFT}
_ZERO = ("lora_B", "hada_w2_a", "lokr_w2", "lokr_w2_b", "oft_blocks")
_NORMAL = {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_b": 1.0}


def inject(module: nn.Module, config: LoraConfig, layers: str, sizes: Mapping[str, tuple[int, float]]) -> None:
    """Have PEFT put its layers into a module.

    Args:
        module: Changed in place; may be on the meta device.
        config: What is trained.
        layers: PEFT's `target_modules`.
        sizes: Rank and alpha by pattern, of layers that have their own.

    Raises:
        ValueError: no layer matches.
        TypeError: a layer is of a type, or of a size, that has no adapter of this kind.
    """
    import peft

    on_meta = next(module.parameters()).is_meta  # there PEFT would leave its own parameters on the CPU
    if config.kind != "oft":
        peft.inject_adapter_in_model(_peft_config(config, layers, sizes), module, ADAPTER, low_cpu_mem_usage=on_meta)
        return
    from .output_rotation import OutputRotationConfig, OutputRotationModel

    OutputRotationModel(module, OutputRotationConfig(
        r=config.rank, target_modules=layers, rank_pattern={path: rank for path, (rank, _) in sizes.items()}),
        ADAPTER, low_cpu_mem_usage=on_meta)


def _peft_config(config: LoraConfig, layers: str, sizes: Mapping[str, tuple[int, float]]) -> Any:
    """The configuration that PEFT is given for a kind of its own."""
    import peft

    shared: dict[str, Any] = {
        "r": config.rank, "target_modules": layers, "rank_pattern": {path: rank for path, (rank, _) in sizes.items()},
        "alpha_pattern": {path: alpha for path, (_, alpha) in sizes.items()}}
    if config.kind == "loha":
        return peft.LoHaConfig(alpha=config.alpha, **shared)  # type: ignore[arg-type]  # a float works as well
    if config.kind == "lokr":
        return peft.LoKrConfig(alpha=config.alpha, decompose_factor=config.lokr_factor, **shared)  # type: ignore[arg-type]
    return peft.LoraConfig(lora_alpha=config.alpha, lora_dropout=config.dropout, bias="none",  # type: ignore[arg-type]
                           use_dora=config.kind == "dora", use_rslora=config.rslora, **shared)


def settle(module: nn.Module) -> None:
    """Make PEFT's layers of LoHa and LoKr compute what files of them mean, and nothing at random.

    A LoKr of two whole matrices changes the weight by their product alone. PEFT's own forward draws a number at each
    call, to leave out layers that it is never told to leave out.
    """
    for layer in module.modules():
        held: Any = layer
        if ADAPTER in getattr(layer, "lokr_w1", ()) and ADAPTER in getattr(layer, "lokr_w2", ()):
            held.scaling[ADAPTER] = 1.0
        if hasattr(layer, "hada_w1_a") or hasattr(layer, "lokr_w1"):
            held.forward = partial(_forward, layer)


def _forward(layer: Any, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    base = layer.base_layer
    result = base(inputs, *args, **kwargs)
    if layer.disable_adapters:
        return result
    delta = layer.get_delta_weight(ADAPTER)
    own = inputs.to(delta.dtype)
    change = functional.conv2d(own, delta, None, base.stride, base.padding, base.dilation, base.groups) if isinstance(
        base, nn.Conv2d) else functional.linear(own, delta)
    return result + change.to(result.dtype)


def split(name: str) -> tuple[str, str]:
    """The layer's path and the tensor's role ("lora_A", "hada_w1_a") in a parameter's name."""
    match = _PARAMETER.fullmatch(name)
    assert match is not None, name
    return match[1], match[2]


def starts_at_zero(role: str) -> bool:
    """Whether an untrained adapter changes nothing because of this tensor."""
    return role in _ZERO


def normal_spread(role: str) -> float | None:
    """The standard deviation from which a tensor starts as LyCORIS has it; None for ±1/√fan_in, evenly."""
    return _NORMAL.get(role)


def adapter_of(config: LoraConfig, path: str, parts: Mapping[str, Tensor]) -> Adapter:
    """What a file holds of a layer.

    rsLoRA scales by alpha / √r; files know only alpha / r, so their alpha is alpha · √r. In OFT's files alpha bounds
    the angles, and 0 does not.

    Args:
        config: What is trained.
        path: The layer's within its component.
        parts: Its tensors by role.
    """
    rank, alpha = config.size(path)
    if config.kind in _KINDS:
        return OtherAdapter(_KINDS[config.kind], dict(parts), 0.0 if config.kind == "oft" else alpha)
    return LoraModule(parts["lora_A"], parts["lora_B"], alpha * (rank ** 0.5 if config.rslora else 1.0),
                      parts.get("lora_magnitude_vector"))


def part_of(module: Adapter, role: str) -> Tensor:
    """The inverse of `adapter_of` for one tensor."""
    if isinstance(module, OtherAdapter):
        return module.tensors[role]
    return getattr(module, {"lora_A": "down", "lora_B": "up", "lora_magnitude_vector": "magnitude"}[role])
