"""Stable Diffusion models on disk as what a run trains."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch

from ..dataset.cache import EncodedSet
from ..dataset.types import TrainingSet
from ..device_memory import free_cache
from ..errors import AtelierError
from ..models.families import family_of
from ..models.handle import DiffusersModel
from ..models.load import load_scheduler_config, load_text, load_tokenizers, load_unet, load_unet_config, load_vae
from ..models.text import TextBatch
from ..progress import Progress
from .devices import RunPaths
from .preparation import cut_captions, encode_in_room
from .processes import ALONE, Processes
from .request.request import TrainRequest
from .samples import UNetPainter, encode_prompts
from .trainable import LoadedModel
from .unet_denoiser import UNetDenoiser
from .unet_memory_plan import (
    checkpoint_unet,
    fitting_unet_batch,
    free_memory,
    graphs_obstacle,
    place_unet,
    plan_unet,
    whole_memory,
)

log = logging.getLogger("atelier")

_BASE_VERSION = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}
"""kohya's name of each family, by its key."""


@dataclass(frozen=True)
class DiffusersTrainable:
    """A `TrainableModel` (see `atelier.train.trainable`)."""

    model: DiffusersModel
    processes: Processes = ALONE
    """They share out the encoding."""

    def check(self) -> None:
        """Refuse upscaling models and the refiner."""
        family, name = family_of(self.model.family), self.model.path.name
        if family.in_channels != 4 and not family.inpaints:
            raise AtelierError(f"{name} takes {family.in_channels} channels: an upscaling model.",
                               "Train on the ordinary version of the model.")
        if family.key == "sdxl-refiner":
            raise AtelierError(f"{name} is a refiner, which only finishes what a base model began.",
                               "Train on the base model.")

    def identity(self) -> Mapping[str, object]:
        """Weights, noise schedule with prediction type, latent scale and shift."""
        model = self.model
        return {"weights": model.fingerprint, "noise schedule": model.noise_schedule.digest,
                "latents": [model.latent_scale, model.latent_shift]}

    def header(self) -> Mapping[str, object]:
        """The keys of kohya and of the modelspec standard that describe the model."""
        model = self.model
        velocity = model.prediction_type == "v_prediction"
        architecture, base = family_of(model.family).modelspec, model.family.removesuffix("-inpainting")
        if model.family == "sd2" and velocity:
            architecture = "stable-diffusion-v2-768-v"  # the standard has a name for this one
        return {
            "ss_base_model_version": _BASE_VERSION.get(base, base), "ss_v2": base == "sd2",
            "ss_v_parameterization": velocity, "ss_sd_model_name": model.path.name,
            "ss_sd_model_hash": model.fingerprint, "modelspec.architecture": f"{architecture}/lora",
            "modelspec.implementation": "diffusers", "modelspec.prediction_type": model.prediction_type}

    def cut_captions(self, data: TrainingSet) -> str:
        """By the model's own tokenizers."""
        return cut_captions(data, load_tokenizers(self.model))

    def fitting_batch(self, data: TrainingSet, request: TrainRequest, *, device: torch.device, dtype: torch.dtype
                      ) -> int:
        """Counted over the UNet without its values."""
        return fitting_unet_batch(load_unet_config(self.model), data, request, dtype, whole_memory(device))

    def encode(self, data: TrainingSet, request: TrainRequest, paths: RunPaths, *, device: torch.device,
               dtype: torch.dtype, progress: Progress) -> EncodedSet:
        """With the VAE and the text encoders, in as large batches as there is memory for."""
        masks = request.inpainting.inpaint_masks if family_of(self.model.family).inpaints else 0
        return encode_in_room(data, self.model, request.captions, paths, self.processes, device=device, dtype=dtype,
                              progress=progress, inpaint_masks=masks)

    def load(self, data: EncodedSet, request: TrainRequest, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """The UNet, and the text encoders where they are trained."""
        model, samples = self.model, request.samples
        # float16 overflows in SDXL's VAE; float32 costs little for one picture.
        exact = torch.float32 if dtype == torch.float16 else dtype
        drawn = None
        if samples.prompts and not request.lora.train_text_encoder:
            drawn = self._prompts(request, exact, device)
        plan = plan_unet(load_unet_config(model), data, request, dtype, free_memory(device))
        if plan.text():
            log.info(plan.text())
        unet = load_unet(model, dtype=dtype, device="cpu" if plan.swapped else device)
        text = load_text(model, dtype=dtype, device=device) if request.lora.train_text_encoder else None
        place_unet(unet, plan, device, request.lora)
        denoiser = UNetDenoiser(unet=unet, scheduler_config=load_scheduler_config(model), text=text, device=device,
                                dtype=dtype, uncapturable=graphs_obstacle(plan, request.device))
        paint = UNetPainter(denoiser, samples, drawn, partial(load_vae, model, dtype=exact, device=device),
                            family_of(model.family).inpaints)
        may_switch = not plan.checkpointing and request.device.gradient_checkpointing == "auto"
        return LoadedModel(denoiser, plan.checkpointing, paint if samples.prompts else None, plan.notes,
                           save_memory=partial(checkpoint_unet, unet, request.lora) if may_switch else None)

    def _prompts(self, request: TrainRequest, dtype: torch.dtype, device: torch.device
                 ) -> tuple[list[TextBatch], TextBatch]:
        text = load_text(self.model, dtype=dtype, device=device)
        with torch.no_grad():
            conditions = encode_prompts(text, request.samples)
        del text
        free_cache(device)
        return conditions
