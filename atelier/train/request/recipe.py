"""The recipe: optimiser, loss, captions and validation. All of it decides the weights, so all of it belongs to a run's
identity."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import AtelierError
from ...fields import check_text
from .checks import check_types, require, require_fraction, require_not_negative, require_one_of, require_positive
from .keyword_arguments import keyword_arguments

OPTIMIZERS = ("adamw", "adamw8bit", "prodigy", "paged_adamw8bit", "lion8bit", "ademamix8bit", "lion", "came",
              "adafactor", "radam", "nadam", "rmsprop", "sgd")
OPTIMIZER_PACKAGES = ("torch", "bitsandbytes", "prodigyopt", "pytorch_optimizer")
"""Where others come from: "bitsandbytes.LAMB8bit"."""
SCHEDULES = ("constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "rex")
LOSSES = ("mse", "huber", "smooth_l1")
HUBER_SCHEDULES = ("constant", "exponential", "snr")
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
    """"adamw", "adamw8bit" (package bitsandbytes), "prodigy" (package prodigyopt; set learning_rate to 1), another of
    `OPTIMIZERS`, or a package of `OPTIMIZER_PACKAGES` with a class in it, such as "torch.Adamax"."""
    optimizer_args: str = ""
    """Its other keyword arguments, such as "eps=1e-6, betas=(0.9, 0.99)"; checked against its signature."""
    learning_rate: float = 1e-4
    text_learning_rate: float = 5e-5
    """Learning rate of the text encoder's adapters. Prodigy uses learning_rate for them, unless this is 0."""
    lora_plus_ratio: float = 1.0
    """The B matrices learn at this many times the rate of the A matrices (LoRA+, https://arxiv.org/abs/2402.12354; the
    paper has 16 with a lower learning_rate); 1: at the same rate."""
    beta1: float = 0.9
    """Of "adamw", "adamw8bit" and "prodigy", as `beta2`; others have their own unless `optimizer_args` give betas."""
    beta2: float = 0.999
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 switches clipping off."""
    schedule: str = "cosine"
    """Learning rate over the run after warm-up: "constant", or falling to 0: "linear", "cosine",
    "cosine_with_restarts", "polynomial" or "rex" (https://arxiv.org/abs/2107.04197)."""
    schedule_cycles: int = 3
    """Times that "cosine_with_restarts" falls to 0 (https://arxiv.org/abs/1608.03983, all of one length)."""
    schedule_power: float = 2.0
    """Exponent of "polynomial": (1 − share of the run)^power; 1 is "linear"."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises linearly from 0."""
    batch_size: int = 1
    """Pictures per batch; 0: as many as fit into the card (one where there is none). Then the number that is chosen
    decides the weights."""
    gradient_accumulation: int = 1
    """Batches per optimiser step."""
    ema_decay: float = 0.0
    """Decay of an exponential moving average of the weights (0.999 is usual); 0 switches it off."""

    def __post_init__(self) -> None:
        check_types(self)
        package, dot, name = self.optimizer.partition(".")
        if not (dot and package in OPTIMIZER_PACKAGES and name.isidentifier()):
            require_one_of(self, "optimizer", OPTIMIZERS)
        keyword_arguments(self.optimizer_args)
        require_one_of(self, "schedule", SCHEDULES)
        require(self.lora_plus_ratio == 1 or not self.optimizer.lower().endswith("prodigy"), "lora_plus_ratio",
                self.lora_plus_ratio, "Prodigy has one rate for all weights: leave it at 1, or choose another "
                "optimizer.")
        require_positive(self, "learning_rate", "gradient_accumulation", "lora_plus_ratio",
                         "schedule_cycles", "schedule_power")
        require_not_negative(self, "batch_size", "text_learning_rate", "weight_decay", "max_grad_norm", "warmup_steps")
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
    preservation_weight: float = 1.0
    """Weight of what `preservation_class` adds to the loss; 0 adds nothing."""
    loss: str = "mse"
    """Of a pixel's error e: "mse", e²; "huber", 2c (√(e² + c²) − c); or "smooth_l1", 2 (√(e² + c²) − c). The last two
    let few large errors, as damaged or foreign pictures make them, weigh less (pseudo-Huber,
    https://arxiv.org/abs/2403.16728)."""
    huber_c: float = 0.1
    """c, where the schedule is at its smallest: errors far below it are squared."""
    huber_schedule: str = "snr"
    """c over the noise levels: "constant"; "exponential", from 1 without noise to `huber_c` at all noise; or "snr",
    falling in the same way with the ratio of noise to signal (ibid., section 4)."""

    def __post_init__(self) -> None:
        check_types(self)
        require_not_negative(self, "min_snr_gamma", "noise_offset", "prior_weight", "preservation_weight")
        require_one_of(self, "loss", LOSSES)
        require_one_of(self, "huber_schedule", HUBER_SCHEDULES)
        require(0 < self.huber_c <= 1, "huber_c", self.huber_c, "Choose a number above 0, up to 1.")


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
    preservation_class: str = ""
    """The word for what the subject is one of, such as "dog". With it in the trigger's place the network is held to
    what it predicts untrained, in each step (see `atelier.train.preservation`); empty: it is not."""

    def __post_init__(self) -> None:
        check_types(self)
        require_fraction(self, "caption_dropout")
        require_fraction(self, "tag_dropout")
        if self.tag_dropout and self.caption_variants == 1:
            raise AtelierError(f"tag_dropout is {self.tag_dropout:g}, but caption_variants is 1: there is no variant "
                               "to leave tags out of.", "Set caption_variants to 4 or more, or tag_dropout to 0.")
        check_text("preservation_class", self.preservation_class)
        require(self.preservation_class == self.preservation_class.strip(), "preservation_class",
                repr(self.preservation_class), "Leave out the spaces around it.")
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
