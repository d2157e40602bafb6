"""The handle of a model: where it is and what it is. No weights in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DiffusersModel:
    """A Stable Diffusion model on disk, as a diffusers folder or a single-file checkpoint.

    `atelier.models.open.open_model` makes one; `atelier.models.load` loads its components.
    """

    path: Path
    family: str
    """Key of `atelier.models.families.FAMILIES`: "sd1", "sd2", "sdxl", "sdxl-refiner", …"""
    prediction_type: str
    """"epsilon" or "v_prediction": what the UNet predicts."""
    dtype: str
    """Storage type of the UNet's weights, in torch's words: "float16", "bfloat16", "float32"."""
    fingerprint: str
    """Hex digest of the model's content: same weights, same fingerprint, whatever the file is called."""

    @property
    def is_folder(self) -> bool:
        """True for a diffusers folder, False for a single file."""
        return self.path.is_dir()
