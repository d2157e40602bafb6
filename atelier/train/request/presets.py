"""Named starting points, and the one way from a preset and what a person changes to a training request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import AtelierError
from .request import LENGTH, TrainRequest

_DEFAULTS = TrainRequest(steps=1)


def _preset(**values: Any) -> TrainRequest:
    return _DEFAULTS.override(values)


def _flow(**values: Any) -> TrainRequest:
    return _preset(**{"targets": "attention_ff", "learning_rate": 1e-4, "caption_dropout": 0.05, "sample_cfg": 4.0,
                      "level_distribution": "logit_normal", "level_shift": "value", "steps": 1500, **values})


PRESETS: dict[str, TrainRequest] = {
    # A subject or an object in 10 to 30 pictures.
    "subject": _preset(rank=16, alpha=16, min_snr_gamma=5.0, caption_dropout=0.05, steps=1200),
    # A style: more pictures, a little more capacity, feed-forward layers included.
    "style": _preset(rank=32, alpha=32, targets="attention_ff", min_snr_gamma=5.0, noise_offset=0.03,
                     caption_dropout=0.1, steps=2000),
    # See quickly whether pictures and captions are right.
    "quick look": _preset(rank=8, alpha=8, learning_rate=2e-4, monitor="off", patience=0, steps=200),
    # The published recipe, exactly: constant rate, no clipping, batch 1, stop on the epoch's mean loss.
    "reference recipe": _preset(rank=8, alpha=16, dropout=0.1, targets="attention", optimizer="adamw",
                                learning_rate=1e-4, beta1=0.9, beta2=0.999, weight_decay=0.01, max_grad_norm=0,
                                schedule="constant", batch_size=1, monitor="epoch", patience=2, epochs=30),
    # The same for models of flow matching (Flux, Qwen-Image, Z-Image, Anima, Krea 2, SD 3.5): rank and rate that
    # sd-scripts gives for FLUX.1 (docs/flux_train_network.md), levels as the model is sampled, guidance as usual there.
    "flow subject": _preset(rank=16, alpha=16, targets="attention_ff", learning_rate=1e-4, caption_dropout=0.05,
                            sample_cfg=4.0, steps=1500),
    "flow style": _preset(rank=32, alpha=32, targets="attention_ff", learning_rate=1e-4, caption_dropout=0.1,
                          sample_cfg=4.0, steps=2500),
    # By model: what other trainers' documentation trains a LoRA with, as a starting point. Anima and SD 3.5: sd-scripts
    # (docs/anima_train_network.md, sd3_train_network.md); the others: musubi-tuner (docs/krea2.md, flux_2.md,
    # zimage.md, qwen_image.md). Alpha is 1 where they give none, as those programs take it. FLUX.2's shift depends on
    # the resolution there; here it is the one that the model is drawn with.
    "anima": _flow(rank=8, alpha=1, shift_value=1.0),
    "krea 2": _flow(rank=32, alpha=32, targets="all_linear", shift_value=2.5, sample_cfg=3.5),
    "flux.2": _flow(rank=32, alpha=1, level_shift="model", sample_cfg=5.0),
    "z-image": _flow(rank=32, alpha=1, shift_value=2.0),
    "qwen-image": _flow(rank=16, alpha=1, learning_rate=5e-5, shift_value=2.2),
    "sd 3.5": _flow(rank=16, alpha=1, targets="attention", shift_value=1.0),
    # A style for the small model that ships, in three minutes on two cores. Pictures of 128 pixels need high rates, and
    # a weight on noisy steps, where backgrounds are decided.
    "demo model": _preset(rank=16, alpha=16, targets="attention_ff_conv", learning_rate=2e-3, batch_size=4,
                          min_snr_gamma=0.5, noise_offset=0.15, prior_weight=0.5, ema_decay=0.98, patience=3,
                          min_delta=0.001, validate_every=25, validation_pictures=6,
                          sample_prompt="a pencil sketch of a large red star, in the centre", sample_steps=12,
                          sample_cfg=1.5, epochs=19),
}
"""By name, the first being the default."""

OF_ONE_MODEL = ("anima", "krea 2", "flux.2", "z-image", "qwen-image", "sd 3.5")
"""Presets named after the model that they are for, all as long as *flow subject*."""


def build_request(preset: str | None, *overrides: Mapping[str, Any]) -> TrainRequest:
    """The request of a preset with everything that is set beside it: the one way in for node, shell and Python.

    Args:
        preset: A key of `PRESETS`; None starts from the defaults of the dataclasses, and needs a length.
        overrides: Values by their flat names (see `TrainRequest.override`). Of two for one name, the later counts.

    Raises:
        AtelierError: there is no such preset, a name is unknown, or a value is out of range or of another type.
    """
    values: dict[str, Any] = {}
    for given in overrides:
        values.update(given)
    if preset is None:
        return TrainRequest(**{name: values.pop(name) for name in LENGTH if name in values}).override(values)
    if preset not in tuple(PRESETS):  # not by hash: a configuration file may hold a list here
        raise AtelierError(f"There is no training preset {preset!r}.", f"Choose one of: {', '.join(PRESETS)}.")
    return PRESETS[preset].override(values)
