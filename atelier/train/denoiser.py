"""What a run trains: a network that predicts from a noisy latent, whatever model it belongs to.

Trainer, loop, cache and validation know this protocol alone; see docs/decisions/0016.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .objective import Objective
from .request.recipe import LossConfig

Conditions = Mapping[str, Tensor]
"""What a prediction depends on beside latent and noise level, by name, with the batch as first dimension. Only the
denoiser knows the names."""


class Denoiser(Protocol):
    """A network with what belongs to it: its arithmetic, its noise process, and how it is called."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the frozen weights and the arithmetic."""
        ...

    @property
    def network(self) -> nn.Module:
        """The module that predicts; the trainer may compile it, or prepack its frozen weights."""
        ...

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """The modules that get adapters, by component name in LoRA files: "unet", "text_encoder", …"""
        ...

    @property
    def encodes_captions(self) -> bool:
        """Whether `predict` encodes the captions itself, as it must where a text encoder is trained."""
        ...

    def objective(self, loss: LossConfig) -> Objective:
        """Its noise process, and the loss of a prediction."""
        ...

    def predict(self, network: Callable[..., Any], noisy: Tensor, levels: Tensor, conditions: Conditions,
                captions: tuple[str, ...]) -> Tensor:
        """The prediction of B noisy latents.

        Args:
            network: `self.network`, or what stands for it (compiled).
            noisy: [B, …], float32.
            levels: [B], as the objective draws them.
            conditions: Of the cache, on the device; floating point in `dtype`.
            captions: B captions; only for a denoiser that `encodes_captions`.
        """
        ...
