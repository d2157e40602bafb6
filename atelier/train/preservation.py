"""Differential output preservation: the class stays what it was, and only the trigger learns.

A LoRA of one dog also changes what "dog" means. With ε the adapted network and ε₀ the same network without its
adapters, each step adds, for the same noisy latents x_t with the caption c′ that has the class word in the trigger's
place,

    weight · |ε(x_t, t, c′) − ε₀(x_t, t, c′)|²        mean over the numbers of a picture, whatever its mask

It needs no pictures of the class, as prior preservation does (Ruiz et al. 2022, https://arxiv.org/abs/2208.12242).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..dataset.captions import class_captions
from ..dataset.types import TrainingSet
from ..errors import AtelierError
from .adapters import Adapters
from .batch_loader import ClassBatch
from .denoiser import Denoiser
from .objective import Objective
from .request.request import TrainRequest


def check_preservation(request: TrainRequest, data: TrainingSet) -> None:
    """Refuse to hold a class where no caption tells it from the subject.

    Raises:
        AtelierError: there is no trigger word, it is the class word itself, or no caption contains it.
    """
    if not request.preservation:
        return
    word = request.captions.preservation_class
    if not data.trigger:
        raise AtelierError(f"preservation_class is {word!r}, but the training set has no trigger word to put it in the "
                           "place of.", "Give the training set a trigger word, or leave preservation_class empty.")
    if data.trigger.casefold() == word.casefold():
        raise AtelierError(f"preservation_class and the trigger word are both {word!r}: it cannot stay what it was and "
                           "be learnt.", "Choose a rare word as the trigger.")
    if not class_captions(data, word):
        raise AtelierError(f"preservation_class is {word!r}, but no caption contains the trigger word "
                           f"{data.trigger!r}.", "Write it into the captions.")


def drift(denoiser: Denoiser, network: Callable[..., Any], objective: Objective, adapters: Adapters,
          given: ClassBatch, noisy: Tensor, levels: Tensor) -> Tensor:
    """Mean over the batch of each sample's squared difference from what the network predicts without its adapters. A
    scalar, with gradients for the adapters.

    Args:
        denoiser: The model.
        network: What stands for its network with adapters.
        objective: Knows what a difference between predictions is, whichever form they have.
        adapters: On the network.
        given: The class's side of the batch.
        noisy: [B, …], float32.
        levels: [B].
    """
    with torch.no_grad(), adapters.off():
        # The plain network: without adapters it would only be compiled once more.
        before = denoiser.predict(denoiser.network, noisy, levels, given.conditions, ())
    now = denoiser.predict(network, noisy, levels, given.conditions, ())
    return (objective.errors(now, before, levels) * given.weights).mean()
