"""Run the host's networks without values: to count the memory of a step, and to see whether a text encoder fits."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ....atelier.dataset.cache import EncodedSet
from ....atelier.dataset.store import Row
from ....atelier.errors import AtelierError
from ....atelier.train.adapters import put_adapters
from ....atelier.train.blocks import blocks
from ....atelier.train.request.request import TrainRequest
from ....atelier.train.step_count import Ghost, StepCount, count_step
from .denoiser import HostDenoiser
from .quantized import compute_in

_log = logging.getLogger("atelier")

_MISFIT = re.compile(r"reduction dim|cannot be multiplied|must match the size|normalized_shape|size mismatch|shape '|"
                     r"expects", re.IGNORECASE)
"""What torch's errors on shapes have in them, and the host's own on conditioning."""

_FAILURES = (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, LookupError, ArithmeticError)
"""What a network of the host's may raise on fake tensors, which it was not written for."""

_CAPTIONS = 200
"""So many captions are looked at for the longest."""


def count_training(denoiser: HostDenoiser, data: EncodedSet, request: TrainRequest) -> StepCount | None:
    """Count what a step takes with the largest picture and the longest caption; None where that cannot be found out,
    as of a network that computes with values it has not got."""
    layers = denoiser.adapted_layers(request.lora)
    item = max(data.items, key=lambda item: item.height * item.width)
    shape = data.moments(item.index, False)[0].shape
    row = {**_longest(data), "time_ids": data.time_ids(item.index)}
    batch = request.optimizer.batch_size

    def adapt(network: nn.Module) -> None:
        (pattern,) = layers.values()
        put_adapters("network", network, request.lora, pattern, denoiser.dtype)

    try:
        ghost, forward = _run(denoiser, [row] * batch, (batch, *shape), adapt)
        return count_step(ghost, denoiser.network, list(blocks(denoiser.network)), forward, denoiser.dtype)
    except _FAILURES as error:
        _log.warning("The memory of a step could not be counted: %s", error)
        return None


def check_text(model: Any, row: Row, dtype: torch.dtype) -> None:
    """Refuse a text encoder whose output the network cannot take.

    Args:
        model: The host's `BaseModel`.
        row: What the encoder gives for a caption.
        dtype: The arithmetic type.

    Raises:
        AtelierError: with the shapes, in torch's words.
    """
    denoiser = HostDenoiser(model, None, torch.device("cpu"), dtype)
    for side in (16, 64):  # some networks cannot compute with the small picture, others not with the large one
        try:
            _run_once(denoiser, row, side)
            return
        except _FAILURES as error:
            if _MISFIT.search(str(error)):
                raise AtelierError(f"The text encoder does not fit the model {type(model).__name__}: {error}",
                                   "Connect the CLIP that belongs to the model, loaded with its type.") from error
            _log.debug("Whether the text encoder fits could not be found out: %s", error)


def _run_once(denoiser: HostDenoiser, row: Row, side: int) -> None:
    latents = denoiser.model.latent_format
    shape = (1, latents.latent_channels, *[1] * (latents.latent_dimensions - 2), side, side)
    size = torch.tensor([8.0 * side, 8.0 * side, 0.0, 0.0, 8.0 * side, 8.0 * side])
    ghost, forward = _run(denoiser, [{**row, "time_ids": size}], shape, lambda network: None)
    with ghost.mode:
        forward()


def _run(denoiser: HostDenoiser, rows: list[Mapping[str, Tensor]], shape: tuple[int, ...],
         adapt: Callable[[nn.Module], None]) -> tuple[Ghost, Callable[[], Tensor]]:
    """The network's ghost, and its forward pass."""
    ghost = Ghost(denoiser.network, adapt)
    model = copy.copy(denoiser.model)
    model.__dict__["_modules"] = {
        name: ghost.module if child is denoiser.network else Ghost(child, mode=ghost.mode).module
        for name, child in denoiser.model._modules.items() if child is not None}
    compute_in(model, denoiser.dtype)
    model.device = torch.device("cpu")
    fake = replace(denoiser, model=model, device=torch.device("cpu"))

    def forward() -> Tensor:
        given = [{name: ghost.fake(tensor, denoiser.dtype if tensor.is_floating_point() else None)
                  if tensor.dim() > 1 else tensor for name, tensor in row.items()} for row in rows]
        return fake.predict(fake.network, torch.zeros(shape), torch.full((len(rows),), 0.5), given, ())

    return ghost, forward


def _longest(data: EncodedSet) -> Row:
    """The conditions of the longest of some captions."""
    captions = [(item.index, variant) for item in data.items for variant in range(item.captions)]
    return max((data.text(*caption) for caption in captions[:_CAPTIONS]),
               key=lambda row: sum(tensor.numel() for tensor in row.values()))
