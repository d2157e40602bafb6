"""What a run trains: a network that predicts from a noisy latent, whatever model it belongs to.

Trainer, loop, cache and validation know this protocol alone; see docs/decisions/0016.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .objective import Objective
from .request.levels import LevelConfig
from .request.lora import LoraConfig
from .request.recipe import LossConfig

Conditions = Sequence[Mapping[str, Tensor]]
"""What the prediction of each sample depends on beside latent and noise level, by name and without a batch dimension:
texts may be of different lengths. Only the denoiser knows the names."""


def stacked(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The samples' tensors of each name, which all of them have in one shape, as a batch [B, …]."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


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

    @property
    def uncapturable(self) -> str:
        """Why its passes cannot be recorded as CUDA graphs, such as "blocks wait in main memory"; "" where they can:
        `predict` then only gives work to the device, the same for inputs of the same shapes."""
        ...

    def adapted_layers(self, config: LoraConfig) -> Mapping[str, str]:
        """A pattern of the layers that get an adapter, over module paths, for each of the components.

        Raises:
            AtelierError: it has none of the kind that is asked for.
        """
        ...

    def objective(self, loss: LossConfig, levels: LevelConfig) -> Objective:
        """Its noise process, and the loss of a prediction."""
        ...

    def predict(self, network: Callable[..., Any], noisy: Tensor, levels: Tensor, conditions: Conditions,
                captions: tuple[str, ...]) -> Tensor:
        """The prediction of B noisy latents.

        Args:
            network: `self.network`, or what stands for it (compiled).
            noisy: [B, …], float32.
            levels: [B], as the objective draws them.
            conditions: B rows of the cache, on the device; floating point in `dtype`.
            captions: B captions; only for a denoiser that `encodes_captions`.
        """
        ...
