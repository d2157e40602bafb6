"""What a training run is asked to do. Every default of the trainer stands here and nowhere else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..errors import AtelierError
from ..fields import typed

TARGETS = {
    "attention": r".*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)",
    "cross_attention": r".*\.attn2\.(to_q|to_k|to_v|to_out\.0)",
    "attention_ff": r".*\.(attn[12]\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2))",
    "attention_ff_conv": (r".*\.(attn[12]\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out|"
                          r"conv1|conv2|conv_shortcut|time_emb_proj|downsamplers\.0\.conv|upsamplers\.0\.conv)"),
}
"""UNet layers a LoRA may stand on, as patterns over diffusers' module paths."""

TEXT_TARGETS = r".*\.self_attn\.(q_proj|k_proj|v_proj|out_proj)"
"""Text-encoder layers that get an adapter when the text encoder is trained."""


def _require(ok: bool, name: str, value: object, do: str) -> None:
    if not ok:
        raise AtelierError(f"{name} is {value!r}.", do)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    _require(value in allowed, name, value, f"Choose one of: {', '.join(allowed)}.")


def _check_types(config: Any) -> None:
    for name, value in typed(type(config), vars(config)).items():
        object.__setattr__(config, name, value)  # 8 where 8.0 is declared: the same digest and the same header


@dataclass(frozen=True)
class LoraConfig:
    """The adapter: W' = W + (alpha / rank) · B · A on the chosen layers.

    Raises:
        AtelierError: a value is out of range or of another type; the message names the field.
    """

    rank: int = 16
    """Inner width r of each adapter, 1 to 1024."""
    alpha: float = 16.0
    """Strength numerator; the delta is scaled by alpha / rank (alpha / √rank with `rslora`)."""
    dropout: float = 0.0
    """Chance that an input of the adapter is zeroed in training."""
    targets: str = "attention"
    """Which UNet layers: a key of `TARGETS`."""
    kind: str = "lora"
    """"lora", or "dora" (weight-decomposed, https://arxiv.org/abs/2402.09353)."""
    rslora: bool = False
    """Scale by alpha / √rank (https://arxiv.org/abs/2312.03732)."""
    train_text_encoder: bool = False
    """Also put adapters on the text encoder's attention."""

    def __post_init__(self) -> None:
        _check_types(self)
        _require(1 <= self.rank <= 1024, "rank", self.rank, "Choose a whole number from 1 to 1024.")
        _require(self.alpha > 0, "alpha", self.alpha, "Choose a number above 0; alpha = rank gives scale 1.")
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "Choose a number from 0 up to but not including 1.")
        _one_of("targets", self.targets, tuple(TARGETS))
        _one_of("kind", self.kind, ("lora", "dora"))


@dataclass(frozen=True)
class TrainingOptions:
    """Everything about a run that a newcomer need not meet.

    Raises:
        AtelierError: a value is out of range or of another type, or two contradict each other; the message names the
            fields.
    """

    # Optimiser
    optimizer: str = "adamw"
    """"adamw", "adamw8bit" (package bitsandbytes) or "prodigy" (package prodigyopt; set learning_rate to 1)."""
    learning_rate: float = 1e-4
    text_learning_rate: float = 5e-5
    """Used for the text encoder's adapters when they are trained. Prodigy uses learning_rate for them, unless this is
    0."""
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 switches clipping off."""
    schedule: str = "cosine"
    """Learning rate over the run after warm-up: "constant", "linear" or "cosine" (both fall to 0)."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises from 0."""
    batch_size: int = 1
    gradient_accumulation: int = 1
    """Batches per optimiser step."""

    # Objective
    min_snr_gamma: float = 0.0
    """Min-SNR weighting (https://arxiv.org/abs/2303.09556); 5 is the paper's value, 0 switches it off."""
    noise_offset: float = 0.0
    """Adds this much noise per channel, the same for all pixels; helps very dark and very bright pictures."""
    prior_weight: float = 1.0
    """Loss weight of prior-preservation pictures."""
    caption_dropout: float = 0.0
    """Chance that a picture is trained with the empty caption, which keeps guidance working."""
    caption_variants: int = 1
    """Shuffled versions of each comma-separated caption to train with, the original first."""
    keep_tokens: int = 1
    """Leading comma-separated parts of a caption that shuffling leaves in place."""

    # Validation and stopping
    monitor: str = "validation"
    """What early stopping and "best" look at: "validation" (fixed pictures, noise and timesteps),
    "epoch" (mean training loss of the epoch, as the reference recipe does) or "off"."""
    patience: int = 5
    """Looks without improvement after which training ends; 0 never ends early."""
    min_delta: float = 0.0
    """A loss must be this much below the best to count as better."""
    validation_timesteps: int = 8
    """Evenly spread timesteps at which each validation picture is judged; at least 8."""
    validation_pictures: int = 4
    """At most so many pictures are used for validation."""
    holdout: bool = True
    """Keep the validation pictures out of training (only from 10 pictures on; below, training pictures serve)."""
    validate_every: int = 0
    """Optimiser steps between looks; 0: each epoch, but not more often than every 50 steps."""

    # Samples and files
    sample_prompt: str = ""
    """Draw a picture of this prompt now and then; empty: none."""
    sample_negative: str = ""
    sample_every: int = 0
    """Optimiser steps between sample pictures; 0: four times in the run. A last one is drawn at the end."""
    sample_steps: int = 20
    sample_cfg: float = 7.0
    save_every: int = 0
    """Also keep a LoRA file every so many optimiser steps; 0: only best and last."""
    form: str = "kohya"
    """Key form of the written file: "kohya" (ComfyUI, A1111, Forge) or "diffusers"."""

    # Precision and memory
    precision: str = "auto"
    """Of the frozen weights and the arithmetic: "auto", "fp32", "bf16", "fp16". Adapters are always kept in float32."""
    gradient_checkpointing: str = "auto"
    """"auto" (only when memory demands it), "on" or "off"."""
    compile: str = "off"
    """"on" compiles the UNet (torch.compile), which takes minutes before the first step; "off"."""
    ema_decay: float = 0.0
    """Average the weights over time with this decay (0.999 is usual); 0 switches it off."""

    def __post_init__(self) -> None:
        _check_types(self)
        _one_of("optimizer", self.optimizer, ("adamw", "adamw8bit", "prodigy"))
        _one_of("schedule", self.schedule, ("constant", "linear", "cosine"))
        _one_of("monitor", self.monitor, ("validation", "epoch", "off"))
        _one_of("form", self.form, ("kohya", "diffusers"))
        _one_of("precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        _one_of("gradient_checkpointing", self.gradient_checkpointing, ("auto", "on", "off"))
        _one_of("compile", self.compile, ("on", "off"))
        for name in ("learning_rate", "batch_size", "gradient_accumulation", "caption_variants", "sample_steps",
                     "validation_pictures"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "Choose a number above 0.")
        for name in ("weight_decay", "max_grad_norm", "warmup_steps", "min_snr_gamma", "noise_offset", "prior_weight",
                     "keep_tokens", "patience", "min_delta", "validate_every", "sample_every", "save_every",
                     "text_learning_rate", "sample_cfg"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "Choose 0 or a number above it.")
        for name in ("beta1", "beta2", "caption_dropout", "ema_decay"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name),
                     "Choose a number from 0 up to but not including 1.")
        _require(self.validation_timesteps >= 8, "validation_timesteps", self.validation_timesteps,
                 "Choose at least 8: fewer make the validation loss too noisy to stop on.")
        _require(self.patience == 0 or self.monitor != "off", "monitor and patience", ("off", self.patience),
                 "Early stopping needs something to look at: set patience to 0 or choose a monitor.")


@dataclass(frozen=True)
class TrainConfig:
    """A whole run: the adapter, the options, and how long.

    Length is given as epochs or as optimiser steps, not both.

    Raises:
        AtelierError: both or neither length is given, or a value is of another type.
    """

    lora: LoraConfig = field(default_factory=LoraConfig)
    options: TrainingOptions = field(default_factory=TrainingOptions)
    epochs: int = 0
    """Passes over all pictures (repeats counted)."""
    steps: int = 0
    """Optimiser steps."""
    seed: int = 0

    def __post_init__(self) -> None:
        _check_types(self)
        _require((self.epochs > 0) != (self.steps > 0), "epochs and steps", (self.epochs, self.steps),
                 "Give exactly one of them a number above 0.")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "Choose a whole number from 0 to 2^63 - 1.")

    def digest(self, *parts: str) -> str:
        """Hex digest of this configuration and of `parts`, which name the model and the pictures."""
        content = json.dumps([asdict(self), parts], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def _known(cls: type, values: Any) -> dict[str, Any]:
    names = {f.name for f in fields(cls)}
    _require(isinstance(values, dict), f"The table of {cls.__name__}", values, "Write it as a table of options.")
    unknown = sorted(set(values) - names)
    _require(not unknown, f"{cls.__name__} option", ", ".join(unknown), f"Known options: {', '.join(sorted(names))}.")
    return values


def config_from_dict(values: dict[str, Any]) -> TrainConfig:
    """Build a `TrainConfig` from plain tables `lora` and `options` beside `epochs`, `steps`, `seed`, `preset`.

    Raises:
        AtelierError: an option is unknown, out of range or of another type.
    """
    from .presets import preset

    rest = dict(values)
    base = preset(rest.pop("preset")) if "preset" in rest else TrainConfig(steps=1)
    lora = LoraConfig(**{**asdict(base.lora), **_known(LoraConfig, rest.pop("lora", {}))})
    options = TrainingOptions(**{**asdict(base.options), **_known(TrainingOptions, rest.pop("options", {}))})
    length = {"epochs": base.epochs, "steps": base.steps}
    if "epochs" in rest or "steps" in rest:
        length = {"epochs": rest.pop("epochs", 0), "steps": rest.pop("steps", 0)}
    return TrainConfig(lora, options, seed=rest.pop("seed", 0), **length, **_known(TrainConfig, rest))
