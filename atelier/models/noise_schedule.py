"""The noise schedule of a model, as a diffusers scheduler configuration.

A diffusers folder brings its own configuration. For a single file it is derived from the family, the kind, the
prediction type and the marker of zero terminal SNR. Models that were trained with another kind of noise have none.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ..errors import AtelierError
from .kinds import TRAILING_SPACING, Kind
from .layout import ModelLayout
from .prediction import Prediction, read_kind

EDM_TENSORS = {"edm_mean": "Playground v2.5", "edm_std": "Playground v2.5", "edm_vpred.sigma_max": "CosXL",
               "edm_vpred.sigma_min": "CosXL"}
"""Marker tensors of models trained with the continuous noise of Karras et al. 2022, and the model each belongs to."""

_TRAINING_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear",
    "trained_betas": None, "prediction_type": "epsilon", "rescale_betas_zero_snr": False,
}
"""The values that decide betas and training target, with the defaults of diffusers' schedulers."""


@dataclass(frozen=True)
class NoiseSchedule:
    """The scheduler configuration that a model is trained and sampled with; immutable and hashable."""

    config_json: str
    """The configuration as a JSON object with sorted keys; an empty object if `other_noise` is set."""
    other_noise: str | None = None
    """Name of the model whose noise this is, where it is not that of Stable Diffusion."""

    def as_config(self) -> dict[str, Any]:
        """A new dict for the `from_config` of a diffusers scheduler.

        Raises:
            AtelierError: the noise is not that of Stable Diffusion, and no diffusers configuration describes it.
        """
        if self.other_noise is not None:
            raise _other_noise_error("This model", self.other_noise)
        return json.loads(self.config_json)

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what training takes from the schedule: the betas, whether they are rescaled to zero
        terminal SNR, and the prediction type. Settings of sampling alone, such as the spacing of timesteps, do not
        count."""
        config = json.loads(self.config_json)
        values = {key: config.get(key, default) for key, default in _TRAINING_DEFAULTS.items()}
        return hashlib.sha256(json.dumps([values, self.other_noise], sort_keys=True).encode()).hexdigest()


def read_noise_schedule(layout: ModelLayout, prediction: Prediction) -> NoiseSchedule:
    """The noise schedule of a model that predicts `prediction`."""
    model = other_noise(layout)
    if model is not None:
        return NoiseSchedule("{}", model)
    return NoiseSchedule(json.dumps(scheduler_config(layout, prediction), sort_keys=True))


def scheduler_config(layout: ModelLayout, prediction: Prediction) -> dict[str, Any]:
    """The content of a diffusers folder's `scheduler/scheduler_config.json`.

    A folder's own configuration is kept, but for the prediction type; that of a single file is derived.
    """
    if layout.scheduler:
        return {**layout.scheduler, "prediction_type": prediction.type}
    return derived_config(read_kind(layout, prediction), prediction)


def derived_config(kind: Kind, prediction: Prediction) -> dict[str, Any]:
    """The scheduler configuration of a kind of model.

    With zero terminal SNR (Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed") the betas
    are rescaled and sampling starts at the last timestep.
    """
    config: dict[str, Any] = {
        "_class_name": kind.scheduler, "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "trained_betas": None, "timestep_spacing": "leading", "steps_offset": 1,
        "prediction_type": prediction.type,
    }
    config |= kind.scheduler_config
    if prediction.zero_terminal_snr:
        # PNDM knows no rescaled betas.
        config |= {"_class_name": "EulerDiscreteScheduler", "rescale_betas_zero_snr": True, **TRAILING_SPACING}
    return config


def other_noise(layout: ModelLayout) -> str | None:
    """The model that a file's marker tensors name, if it was trained with other noise than Stable Diffusion's."""
    return next((EDM_TENSORS[name] for name in EDM_TENSORS if name in layout.source.entries), None)


def check_schedule(layout: ModelLayout) -> None:
    """Refuse a model that was trained with other noise than Stable Diffusion's thousand steps.

    No scheduler configuration that we write says how to sample it, and training with other noise would ruin it.

    Raises:
        AtelierError: it is one; the message names it.
    """
    model = other_noise(layout)
    if model is not None:
        raise _other_noise_error(str(layout.path), model)


def _other_noise_error(subject: str, model: str) -> AtelierError:
    return AtelierError(f"{subject} is of the kind of {model}, whose noise is not Stable Diffusion's; it can "
                        "neither become a diffusers folder nor be trained.",
                        "Choose another model, or load this one with ComfyUI's own Load Checkpoint.")
