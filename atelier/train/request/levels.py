"""Which noise levels a model is trained at. It decides the weights, so it belongs to a run's identity."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import check_types, require, require_one_of

DISTRIBUTIONS = ("logit_normal", "uniform")
SHIFTS = ("model", "resolution", "value")


@dataclass(frozen=True, kw_only=True)
class LevelConfig:
    """How noise levels are drawn: a flow model's σ by distribution and shift. Diffusion models (SD1, SD2, SDXL) draw
    all timesteps alike.

    Raises:
        AtelierError: a value is out of range or of another type; the message names the field.
    """

    level_distribution: str = "logit_normal"
    """Before the shift: "logit_normal", the sigmoid of a normal number, which prefers the middle
    (https://arxiv.org/abs/2403.03206, section 3.1), or "uniform"."""
    level_shift: str = "model"
    """Levels are moved by σ' = s σ / (1 + (s − 1) σ) with the shift s that the "model" is sampled with, one that grows
    with the picture's "resolution" (as FLUX.1 does), or the "value" of `shift_value` (ibid., equation 23)."""
    shift_value: float = 1.0
    """s where level_shift is "value"; 1 moves nothing, above 1 towards noise."""
    min_timestep: int = 0
    """The least noise that is trained, in thousandths of the noise process: 0 is the picture. A flow model's levels
    are squeezed into the range after the shift (σ' = min + (max − min) σ), as sd-scripts does."""
    max_timestep: int = 1000
    """The most, likewise: 1000 is all noise. Low levels teach textures, high ones composition."""

    def __post_init__(self) -> None:
        check_types(self)
        require_one_of(self, "level_distribution", DISTRIBUTIONS)
        require_one_of(self, "level_shift", SHIFTS)
        require(0 <= self.min_timestep < self.max_timestep <= 1000, "min_timestep and max_timestep",
                (self.min_timestep, self.max_timestep), "Choose whole numbers from 0 to 1000, the first the smaller.")
        require(0 < self.shift_value <= 1000, "shift_value", self.shift_value, "Choose a number above 0, up to 1000.")
