"""The optimiser, its learning rate over the run, and the running average of the weights."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import AtelierError, MissingPackage
from .request.keyword_arguments import keyword_arguments
from .request.recipe import OptimizerConfig

_CLASSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "adamw": ("torch", "AdamW", {"fused": True}),
    "adamw8bit": ("bitsandbytes", "AdamW8bit", {}),
    "prodigy": ("prodigyopt", "Prodigy", {}),
    "paged_adamw8bit": ("bitsandbytes", "PagedAdamW8bit", {}),
    "lion8bit": ("bitsandbytes", "Lion8bit", {}),
    "ademamix8bit": ("bitsandbytes", "AdEMAMix8bit", {}),
    "lion": ("pytorch_optimizer", "Lion", {}),
    "came": ("pytorch_optimizer", "CAME", {}),
    # With the learning rate of the run instead of one that it makes up.
    "adafactor": ("pytorch_optimizer", "AdaFactor", {"relative_step": False, "scale_parameter": False}),
    "radam": ("torch", "RAdam", {}),
    "nadam": ("torch", "NAdam", {}),
    "rmsprop": ("torch", "RMSprop", {}),
    "sgd": ("torch", "SGD", {"momentum": 0.9}),
}
"""Package, class and arguments of each short name."""

_OWN_BETAS = {"AdamW", "AdamW8bit", "Prodigy"}
"""Those that beta1 and beta2 are for."""

_MODULES = {"torch": "torch.optim", "bitsandbytes": "bitsandbytes.optim"}
_PIP = {"pytorch_optimizer": "pytorch-optimizer"}
_NOT_GIVEN = {"self", "params", "lr"}


def make_optimizer(names: Sequence[str], masters: Sequence[Tensor], options: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser over `masters`: a parameter group for the network's, and one for the text encoders' if they are
    trained; with LoRA+ a second one of each for the B matrices.

    Prodigy finds one step size for all groups and takes no other ratio between their rates than 1 or 0. With it the
    text encoder's group has `learning_rate` as well, or 0 where `text_learning_rate` is 0.

    Raises:
        MissingPackage: the optimiser needs a package that is not installed.
        AtelierError: there is no such optimiser, it cannot train a LoRA, or it does not take the arguments.
    """
    package, class_name, arguments = _CLASSES.get(options.optimizer, (*options.optimizer.split(".", 1), {}))
    kind = _class(package, class_name)
    takes = inspect.signature(kind.__init__).parameters
    arguments = {**arguments, **({"weight_decay": options.weight_decay} if "weight_decay" in takes else {})}
    if class_name in _OWN_BETAS:
        arguments["betas"] = (options.beta1, options.beta2)
    wanted = keyword_arguments(options.optimizer_args)
    known = sorted(name for name, parameter in takes.items()
                   if name not in _NOT_GIVEN and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD,
                                                                    parameter.KEYWORD_ONLY))
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise AtelierError(f"The optimizer {options.optimizer} takes no {', '.join(unknown)}.",
                           f"Its arguments are {', '.join(known)}; the rate is learning_rate.")
    try:
        return kind(_groups(names, masters, options), **{**arguments, **wanted})
    except (TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise AtelierError(f"The optimizer {options.optimizer} cannot be made: {error}.",
                           "Change optimizer_args, or choose another optimizer.") from error


def _class(package: str, name: str) -> Any:
    try:
        importlib.import_module(package)
        module = importlib.import_module(_MODULES.get(package, package))
    except ImportError as error:
        raise MissingPackage(_PIP.get(package, package), f"The optimizer {name}") from error
    kind = getattr(module, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)):
        raise AtelierError(f"{package} has no optimizer {name}.", "Choose one that it has, by its exact name.")
    if hasattr(kind, "train") or name in ("LBFGS", "SparseAdam"):
        raise AtelierError(f"The optimizer {name} does not train as others do (it wants to compute the loss itself, or "
                           "has other weights while it trains), which is not done here.", "Choose another optimizer.")
    return kind


def _groups(names: Sequence[str], masters: Sequence[Tensor], options: OptimizerConfig) -> list[dict[str, Any]]:
    text_rate = options.text_learning_rate
    if options.optimizer.lower().endswith("prodigy") and text_rate:
        text_rate = options.learning_rate
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, master in zip(names, masters, strict=True):
        faster = options.lora_plus_ratio != 1 and ".lora_B." in name
        groups.setdefault((name.startswith("text_encoder"), faster), []).append(master)
    rates = {place: (text_rate if place[0] else options.learning_rate) * (options.lora_plus_ratio if place[1] else 1)
             for place in groups}
    return [{"params": groups[place], "lr": rates[place], "base_lr": rates[place]} for place in sorted(groups)]


def step_where(finite: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Do the optimiser's step if `finite` (a scalar, bool, on the device) holds.

    PyTorch's fused optimisers decide that on the device; for any other, the host waits for the answer.
    """
    if optimizer.param_groups[0].get("fused"):
        fused: Any = optimizer
        fused.found_inf = (~finite).float()
        try:
            optimizer.step()
        finally:
            del fused.found_inf
    elif finite:
        optimizer.step()


def reads_of(options: OptimizerConfig, tensors: int, device: torch.device) -> str:
    """A sentence on an optimiser that makes the host wait for a card in every step; "" for others.

    Args:
        options: Which optimiser.
        tensors: How many are trained.
        device: Where.
    """
    if device.type == "cpu" or not options.optimizer.lower().endswith("prodigy"):
        return ""
    return (f"Prodigy reads two numbers of each trained tensor from the card, {2 * tensors} in a step, and waits for "
            "each: steps take longer than with adamw.")


def rate_factor(step: int, total: int, options: OptimizerConfig) -> float:
    """The learning rate's factor at optimiser step `step` (from 0) of `total`: linear warm-up, then the schedule."""
    warmup = min(options.warmup_steps, total)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    if options.schedule == "linear":
        return 1 - progress
    if options.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if options.schedule == "cosine_with_restarts":
        return 0.5 * (1 + math.cos(math.pi * (progress * options.schedule_cycles % 1)))
    if options.schedule == "polynomial":
        return (1 - progress) ** options.schedule_power
    if options.schedule == "rex":
        return (1 - progress) / (1 - progress / 2)
    return 1.0


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group to its base rate times `factor`; the first group's rate is returned."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return optimizer.param_groups[0]["lr"]


def update_average(average: list[Tensor], current: Sequence[Tensor], decay: float, step: int) -> None:
    """Move `average` towards `current` in place: a ← d·a + (1 − d)·w with d = min(decay, (1 + step) / (10 + step)).

    The smaller decay in the first steps keeps the untrained start from lingering.
    """
    effective = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(average, list(current), 1 - effective)  # pyright: ignore[reportPrivateImportUsage]
