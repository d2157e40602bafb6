"""The optimiser, its learning rate over the run, and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import MissingPackage
from .request.recipe import OptimizerConfig


def make_optimizer(names: Sequence[str], masters: Sequence[Tensor], options: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser over `masters`: a parameter group for the network's, and one for the text encoders' if they are
    trained.

    Prodigy finds one step size for all groups and takes no other ratio between their rates than 1 or 0. With it the
    text encoder's group has `learning_rate` as well, or 0 where `text_learning_rate` is 0.

    Raises:
        MissingPackage: the optimiser needs a package that is not installed.
    """
    text = [m for name, m in zip(names, masters, strict=True) if name.startswith("text_encoder")]
    network = [m for name, m in zip(names, masters, strict=True) if not name.startswith("text_encoder")]
    groups = [{"params": network, "lr": options.learning_rate, "base_lr": options.learning_rate}]
    if text:
        rate = options.text_learning_rate
        if options.optimizer == "prodigy" and rate:
            rate = options.learning_rate
        groups.append({"params": text, "lr": rate, "base_lr": rate})
    betas = (options.beta1, options.beta2)
    if options.optimizer == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingPackage("bitsandbytes", "The 8-bit optimiser") from error
        return AdamW8bit(groups, betas=betas, weight_decay=options.weight_decay)
    if options.optimizer == "prodigy":
        try:
            from prodigyopt import Prodigy  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingPackage("prodigyopt", "The Prodigy optimiser") from error
        return Prodigy(groups, betas=betas, weight_decay=options.weight_decay)
    return torch.optim.AdamW(groups, betas=betas, weight_decay=options.weight_decay, fused=True)


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
