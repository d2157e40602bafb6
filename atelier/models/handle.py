"""The handle of a model: where it is and what its header says. No weights in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .layout import FileState, ModelLayout, read_layout
from .noise_schedule import NoiseSchedule


@dataclass(frozen=True, kw_only=True)
class DiffusersModel:
    """A Stable Diffusion model on disk, as a diffusers folder or a single-file checkpoint.

    `atelier.models.open.open_model` creates it from one reading of the header; `atelier.models.load` loads its
    components. Two handles are equal if they name the same path and content.
    """

    path: Path
    family: str
    """Key of `atelier.models.families.FAMILIES`: "sd1", "sd2", "sdxl", "sdxl-refiner", …"""
    prediction_type: str
    """"epsilon" or "v_prediction": what the UNet predicts."""
    dtype: str
    """Storage type of the UNet's weights, in torch's words: "float16", "bfloat16", "float32"."""
    fingerprint: str
    """Hex digest of the model's weights: same weights, same fingerprint, whatever the file is called."""
    noise_schedule: NoiseSchedule
    """Betas, prediction type and zero terminal SNR, for training and sampling."""
    latent_scale: float
    """Factor of the VAE's latents: latents = (encoded - latent_shift) * latent_scale."""
    latent_shift: float = 0.0
    opened_layout: ModelLayout | None = field(default=None, compare=False, repr=False)
    """The layout that the model was opened with; None for pickles, whose tensors it would keep in memory."""
    opened_state: FileState = field(default=(), compare=False, repr=False)
    """State of the weight files at that time."""

    @property
    def is_folder(self) -> bool:
        """True for a diffusers folder, False for a single file."""
        return self.path.is_dir()

    @property
    def layout(self) -> ModelLayout:
        """The model's components and where their tensors lie.

        It is read again only for pickles and if the weight files changed: byte ranges of the old file would give
        noise.

        Raises:
            AtelierError: the files had to be read again and are no model any more.
        """
        if self.opened_layout is not None and self.opened_layout.file_state() == self.opened_state:
            return self.opened_layout
        return read_layout(self.path)
