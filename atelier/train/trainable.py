"""What a run needs of a model, whatever it is made of: how it is named and told apart, encodes, loads and draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from ..dataset.cache import EncodedSet
from ..dataset.types import TrainingSet
from ..progress import Progress
from .denoiser import Denoiser
from .devices import RunPaths
from .request.request import TrainRequest
from .samples import Paint


@dataclass(frozen=True)
class LoadedModel:
    """A model on its device, ready for training."""

    denoiser: Denoiser
    checkpointing: bool
    """Whether gradient checkpointing was switched on."""
    paint: Paint | None
    """Draws sample pictures; None where none are wanted."""
    notes: tuple[str, ...] = ()
    """Sentences for the report: what of the request does not apply to this model."""
    save_memory: Callable[[], None] | None = None
    """Switches gradient checkpointing on in the middle of a run; None where it is on already, or was forbidden."""


class TrainableModel(Protocol):
    """A model that `atelier.train.run.train` can train."""

    def check(self) -> None:
        """Refuse a model that cannot be trained.

        Raises:
            AtelierError: it says why, and what can be trained instead.
        """
        ...

    def identity(self) -> Mapping[str, object]:
        """What decides the weights of a run beside request and pictures, as JSON values: the model's own weights, and
        what training takes from its configuration."""
        ...

    def header(self) -> Mapping[str, object]:
        """What a LoRA file says of the model: base version, name, hash, architecture, prediction type."""
        ...

    def cut_captions(self, data: TrainingSet) -> str:
        """A sentence on the pictures whose captions are cut in training; empty where all fit."""
        ...

    def fitting_batch(self, data: TrainingSet, request: TrainRequest, *, device: torch.device, dtype: torch.dtype
                      ) -> int:
        """As many pictures as fit into the device in one step; 1 where its memory is the machine's.

        Raises:
            AtelierError: that cannot be counted for this model.
        """
        ...

    def encode(self, data: TrainingSet, request: TrainRequest, paths: RunPaths, *, device: torch.device,
               dtype: torch.dtype, progress: Progress) -> EncodedSet:
        """Encode what the cache lacks; nothing of the encoders stays on the device."""
        ...

    def load(self, data: EncodedSet, request: TrainRequest, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """Load the network, and encode the sample prompt before it needs the memory."""
        ...
