"""Named starting points. A preset is a whole `TrainConfig`; change it with `dataclasses.replace`."""

from __future__ import annotations

from ..errors import AtelierError
from .config import LoraConfig, TrainConfig, TrainingOptions

PRESETS: dict[str, TrainConfig] = {
    # A subject or an object in 10 to 30 pictures.
    "subject": TrainConfig(LoraConfig(rank=16, alpha=16), TrainingOptions(min_snr_gamma=5.0, caption_dropout=0.05),
                           steps=1200),
    # A look: more pictures, a little more capacity, feed-forward layers included.
    "style": TrainConfig(LoraConfig(rank=32, alpha=32, targets="attention_ff"),
                         TrainingOptions(min_snr_gamma=5.0, noise_offset=0.03, caption_dropout=0.1), steps=2000),
    # See quickly whether pictures and captions are right.
    "quick look": TrainConfig(LoraConfig(rank=8, alpha=8),
                              TrainingOptions(learning_rate=2e-4, monitor="off", patience=0), steps=200),
    # The published recipe, exactly: constant rate, no clipping, batch 1, stop on the epoch's mean loss.
    "reference recipe": TrainConfig(
        LoraConfig(rank=8, alpha=16, dropout=0.1, targets="attention"),
        TrainingOptions(optimizer="adamw", learning_rate=1e-4, beta1=0.9, beta2=0.999, weight_decay=0.01,
                        max_grad_norm=0, schedule="constant", batch_size=1, monitor="epoch", patience=2),
        epochs=30),
    # A look for the small model that ships, in three minutes on two cores. Pictures of 128 pixels need high rates, and
    # a weight on noisy steps, where backgrounds are decided.
    "demo model": TrainConfig(
        LoraConfig(rank=16, alpha=16, targets="attention_ff_conv"),
        TrainingOptions(learning_rate=2e-3, batch_size=4, min_snr_gamma=0.5, noise_offset=0.15, prior_weight=0.5,
                        ema_decay=0.98, patience=3, min_delta=0.0005, validate_every=25, validation_pictures=6,
                        sample_prompt="a pencil sketch of a large red star, in the centre", sample_steps=12,
                        sample_cfg=1.5),
        epochs=19),
}
"""By name, the first being the default."""


def preset(name: str) -> TrainConfig:
    """The preset called `name`.

    Raises:
        AtelierError: there is none.
    """
    if name not in tuple(PRESETS):  # not by hash: a configuration file may hold a list here
        raise AtelierError(f"There is no training preset {name!r}.", f"Choose one of: {', '.join(PRESETS)}.")
    return PRESETS[name]
