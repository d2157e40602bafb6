"""The recipe: optimiser, loss, captions and validation. All of it decides the weights, so all of it belongs to a run's
identity."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import AtelierError
from .checks import check_types, require, require_fraction, require_not_negative, require_one_of, require_positive

OPTIMIZERS = ("adamw", "adamw8bit", "prodigy")
SCHEDULES = ("constant", "linear", "cosine")
SCORES = ("fidelity", "likeness")
"""Monitors that are scores of sample pictures: higher is better."""
MONITORS = ("validation", "epoch", *SCORES, "off")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimiser, its learning rate over the run, its batches and the running average of its weights.

    Raises:
        AtelierError: a value is out of range or of another type; the message names the field.
    """

    optimizer: str = "adamw"
    """"adamw", "adamw8bit" (package bitsandbytes) or "prodigy" (package prodigyopt; set learning_rate to 1)."""
    learning_rate: float = 1e-4
    text_learning_rate: float = 5e-5
    """Learning rate of the text encoder's adapters. Prodigy uses learning_rate for them, unless this is 0."""
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 switches clipping off."""
    schedule: str = "cosine"
    """Learning rate over the run after warm-up: "constant", "linear" or "cosine" (both fall to 0)."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises linearly from 0."""
    batch_size: int = 1
    gradient_accumulation: int = 1
    """Batches per optimiser step."""
    ema_decay: float = 0.0
    """Decay of an exponential moving average of the weights (0.999 is usual); 0 switches it off."""

    def __post_init__(self) -> None:
        check_types(self)
        require_one_of(self, "optimizer", OPTIMIZERS)
        require_one_of(self, "schedule", SCHEDULES)
        require_positive(self, "learning_rate", "batch_size", "gradient_accumulation")
        require_not_negative(self, "text_learning_rate", "weight_decay", "max_grad_norm", "warmup_steps")
        require_fraction(self, "beta1", "beta2", "ema_decay")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The weighting of the denoising loss.

    Raises:
        AtelierError: a value is out of range or of another type; the message names the field.
    """

    min_snr_gamma: float = 0.0
    """Min-SNR weighting (https://arxiv.org/abs/2303.09556); 5 is the paper's value, 0 switches it off."""
    noise_offset: float = 0.0
    """Adds this much noise per channel, the same for all pixels; helps very dark and very bright pictures
    (https://www.crosslabs.org/blog/diffusion-with-offset-noise)."""
    prior_weight: float = 1.0
    """Loss weight of prior-preservation pictures (DreamBooth, https://arxiv.org/abs/2208.12242)."""

    def __post_init__(self) -> None:
        check_types(self)
        require_not_negative(self, "min_snr_gamma", "noise_offset", "prior_weight")


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """How captions are varied in training.

    Raises:
        AtelierError: a value is out of range or of another type; the message names the field.
    """

    caption_dropout: float = 0.0
    """Probability that a picture is trained with the empty caption, which keeps classifier-free guidance working."""
    caption_variants: int = 1
    """Shuffled versions of each comma-separated caption to train with, the original first."""
    keep_tokens: int = 1
    """Leading comma-separated parts of a caption that shuffling leaves in place."""
    tag_dropout: float = 0.0
    """Probability that each further part is left out of a variant, so that none is learnt only beside the others."""

    def __post_init__(self) -> None:
        check_types(self)
        require_fraction(self, "caption_dropout")
        require_fraction(self, "tag_dropout")
        if self.tag_dropout and self.caption_variants == 1:
            raise AtelierError(f"tag_dropout is {self.tag_dropout:g}, but caption_variants is 1: there is no variant "
                               "to leave tags out of.", "Set caption_variants to 4 or more, or tag_dropout to 0.")
        require_positive(self, "caption_variants")
        require_not_negative(self, "keep_tokens")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Validation, early stopping and the choice of the best weights.

    Raises:
        AtelierError: a value is out of range or of another type, or two contradict each other; the message names the
            fields.
    """

    monitor: str = "validation"
    """What early stopping and "best" watch: a loss, "validation" (fixed pictures, noise and timesteps) or "epoch" (mean
    training loss of the epoch, as the reference recipe does); a score of the sample pictures, "fidelity" or "likeness"
    (see `atelier.train.sample_scores`); or "off"."""
    patience: int = 5
    """Validations without improvement after which training ends; 0 never ends early."""
    min_delta: float = 0.0
    """A loss must be this much below the best, or a score above it, to count as an improvement."""
    validation_timesteps: int = 8
    """Evenly spread timesteps at which each validation picture is judged; at least 8."""
    validation_pictures: int = 4
    """At most so many pictures are used for validation."""
    holdout: bool = True
    """Keep the validation pictures out of training (only from 10 pictures on; below, training pictures serve)."""
    validate_every: int = 0
    """Optimiser steps between validations; 0: each epoch, but not more often than every 50 steps. Where a score is
    watched, samples are drawn then, and sample_every does not count."""

    def __post_init__(self) -> None:
        check_types(self)
        require_one_of(self, "monitor", MONITORS)
        require_positive(self, "validation_pictures")
        require_not_negative(self, "patience", "min_delta", "validate_every")
        require(self.validation_timesteps >= 8, "validation_timesteps", self.validation_timesteps,
                "Choose at least 8: fewer make the validation loss too noisy to stop on.")
        require(self.patience == 0 or self.monitor != "off", "monitor and patience", ("off", self.patience),
                "Early stopping needs a loss to watch: set patience to 0 or choose a monitor.")
