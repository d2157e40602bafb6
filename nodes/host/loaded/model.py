"""The host's MODEL, CLIP and VAE as a model to train, built anew from its file outside the host's inference mode."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import comfy.model_management as management
import torch

from ....atelier.dataset.cache import Cache, EncodedSet
from ....atelier.dataset.encode import Encoders, encode_with
from ....atelier.dataset.store import Row
from ....atelier.dataset.types import TrainingSet
from ....atelier.errors import AtelierError
from ....atelier.progress import Progress
from ....atelier.train.block_swap import BlockSwap
from ....atelier.train.blocks import blocks
from ....atelier.train.devices import RunPaths
from ....atelier.train.foreign_forward import checkpoint_blocks
from ....atelier.train.memory_plan import MemoryPlan, plan_memory
from ....atelier.train.request.request import TrainRequest
from ....atelier.train.trainable import LoadedModel
from . import kinds, source
from .conditions import encode_caption
from .counting import check_text, count_training
from .denoiser import HostDenoiser
from .gradients import in_training
from .pictures import HostPainter, HostPictureEncoder
from .quantized import compute_in

_log = logging.getLogger("atelier")


@dataclass(frozen=True, kw_only=True)
class HostModel:
    """A `TrainableModel` (see `atelier.train.trainable`). `open_loaded` makes it."""

    model: Any
    """The host's `ModelPatcher`; its weights are never changed."""
    clip: Any
    vae: Any
    files: tuple[Path, ...]
    """The network's own."""
    weights: str
    """Fingerprint of the network, its noise process included."""
    text: str
    """Fingerprint of the text encoder."""
    pixels: str
    """Fingerprint of the VAE."""
    guidance: float | None = None
    """The strength of guidance that a distilled model is told while it is trained; None: as the host does."""

    def check(self) -> None:
        """Refuse a model that learns no pictures, or that was changed since it was loaded."""
        kinds.check_kind(self.model.model)
        source.refuse_patches(self.model, "MODEL")

    def identity(self) -> Mapping[str, object]:
        """The fingerprints of network, text encoder and VAE."""
        return {"weights": self.weights, "text": self.text, "latents": self.pixels, "guidance": self.guidance}

    def header(self) -> Mapping[str, object]:
        """The keys of kohya and of the modelspec standard that describe the model."""
        model = self.model.model
        return {"ss_base_model_version": kinds.base_version(model), "ss_sd_model_name": self.files[0].name,
                "ss_sd_model_hash": self.weights, "ss_guidance_scale": self.guidance,
                "modelspec.architecture": f"{kinds.architecture(model)}/lora",
                "modelspec.implementation": "https://github.com/comfyanonymous/ComfyUI"}

    def cut_captions(self, data: TrainingSet) -> str:
        """Nothing: the host's text encoders take captions of any length, in parts where need be."""
        return ""

    def fitting_batch(self, data: TrainingSet, request: TrainRequest, *, device: torch.device, dtype: torch.dtype
                      ) -> int:
        """Not known before pictures and captions are encoded."""
        raise AtelierError("batch_size is 0: as many as fit. That is not counted for models that ComfyUI has loaded.",
                           "Choose a number; the log says what a step takes.")

    def encode(self, data: TrainingSet, request: TrainRequest, paths: RunPaths, *, device: torch.device,
               dtype: torch.dtype, progress: Progress) -> EncodedSet:
        """With the host's VAE and text encoder, which have left the device afterwards."""
        latent_format = self.model.model.latent_format
        scale = [type(latent_format).__name__, float(getattr(latent_format, "scale_factor", 1.0))]
        store = Cache.of(paths.cache, [self.pixels, *scale, device.type], [self.text, device.type])
        encoders = Encoders(lambda: HostPictureEncoder(self.vae, latent_format),
                            lambda: lambda captions: [encode_caption(self.clip, caption) for caption in captions])
        self._check_clip(dtype)
        options = request.captions
        encoded = encode_with(encoders, data, store, device=device, batch_size=1, progress=progress,
                              variants=options.caption_variants, keep_tokens=options.keep_tokens,
                              tag_dropout=options.tag_dropout, class_word=options.preservation_class)
        management.unload_all_models()
        return encoded

    def load(self, data: EncodedSet, request: TrainRequest, *, device: torch.device, dtype: torch.dtype) -> LoadedModel:
        """Build the network anew from its file, with the frozen weights stored as they are there."""
        self._refuse(request)
        samples = request.samples
        prompts = self._prompts(request) if samples.prompts else None
        management.unload_all_models()
        model = self._rebuilt(dtype)
        denoiser = HostDenoiser(model, self.guidance, device, dtype)
        denoiser.objective(request.loss, request.levels).check()
        denoiser.check_form(request.lora, request.output.lora_format, kinds.base_version(model))
        plan = _planned(denoiser, data, request, device)
        _place(model, plan, device)
        paint = None
        if prompts is not None:
            shape = data.moments(0, False)[0].shape[:-2]
            paint = HostPainter(denoiser=denoiser, vae=self.vae, config=samples, positives=prompts[0],
                                negative=prompts[1], latent_shape=tuple(shape))
        may_switch = not plan.checkpointing and request.device.gradient_checkpointing == "auto"
        return LoadedModel(denoiser, plan.checkpointing, paint, tuple(self._notes(request, denoiser, plan)),
                           save_memory=partial(_checkpoint, model) if may_switch else None)

    def _check_clip(self, dtype: torch.dtype) -> None:
        """Refuse the CLIP of another model, before pictures are encoded; once a session for each pair."""
        pair = (self.weights, self.text)
        if pair not in _FITTING:
            check_text(self.model.model, encode_caption(self.clip, ""), dtype)
            _FITTING.add(pair)

    def _refuse(self, request: TrainRequest) -> None:
        if request.lora.train_text_encoder:
            raise AtelierError("The text encoder of a model that ComfyUI has loaded cannot be trained.",
                               "Switch train_text_encoder off, or open an SD1, SD2 or SDXL checkpoint with Open Model.")
        if request.device.compile == "on":
            raise AtelierError("A model that ComfyUI has loaded cannot be compiled for training.",
                               "Set compile to \"off\".")

    def _prompts(self, request: TrainRequest) -> tuple[list[Row], Row]:
        samples = request.samples
        return ([encode_caption(self.clip, prompt) for prompt in samples.prompts],
                encode_caption(self.clip, samples.sample_negative))

    def _rebuilt(self, dtype: torch.dtype) -> Any:
        """In main memory, with weights of the types that they have in the file."""
        model = self.model.clone(disable_dynamic=True, force_deepcopy=True).model.to("cpu")
        model.requires_grad_(False)
        if "model_sampling" in self.model.object_patches:
            model.model_sampling = _out_of_inference(self.model.get_model_object("model_sampling"))
        compute_in(model, dtype)
        return model

    def _notes(self, request: TrainRequest, denoiser: HostDenoiser, plan: MemoryPlan) -> list[str]:
        objective = denoiser.objective(request.loss, request.levels)
        notes = [*plan.notes, kinds.distilled(self.model.model, self.files[0].name)]
        if request.loss.min_snr_gamma and not objective.is_discrete:
            notes.append("min_snr_gamma was not used: this model has no timesteps but is trained by flow matching.")
        return notes


_FITTING: set[tuple[str, str]] = set()
"""Networks and text encoders, by fingerprint, that have been seen to fit."""


def open_loaded(model: Any, clip: Any, vae: Any, *, guidance: float | None, progress: Progress) -> HostModel:
    """What the host has loaded, as a model to train.

    Raises:
        AtelierError: it is no model for pictures, was changed since it was loaded, has no file, or its VAE is another
            model's.
    """
    kinds.check_kind(model.model)
    for part, what in ((model, "MODEL"), (clip.patcher, "CLIP"), (vae.patcher, "VAE")):
        source.refuse_patches(part, what)
    _check_latents(model.model.latent_format, vae)
    files = source.files_of(model, "MODEL")
    if said := kinds.distilled(model.model, files[0].name):
        _log.warning(said)
    sampling = model.get_model_object("model_sampling")
    process = [*(parent.__name__ for parent in type(sampling).__mro__), float(getattr(sampling, "shift", None) or 0)]
    options = model.cached_patcher_init[1][1:]
    return HostModel(
        model=model, clip=clip, vae=vae, files=tuple(files), guidance=guidance,
        weights=source.fingerprint(files, [process, options], progress),
        text=source.fingerprint(source.files_of(clip.patcher, "CLIP"),
                                [clip.layer_idx, type(clip.cond_stage_model).__name__], progress),
        pixels=source.fingerprint(source.files_of(vae.patcher, "VAE"), type(vae.first_stage_model).__name__, progress))


def _planned(denoiser: HostDenoiser, data: EncodedSet, request: TrainRequest, device: torch.device) -> MemoryPlan:
    free = _free(device)
    wanted = free is not None or request.device.blocks_to_swap > 0
    plan = plan_memory(count_training(denoiser, data, request) if wanted else None, request.device, free)
    if plan.text():
        _log.info("%s", plan.text())
    return plan


def _place(model: Any, plan: MemoryPlan, device: torch.device) -> None:
    """Move a model to the device as planned."""
    network = model.diffusion_model
    if plan.swapped:
        swap = BlockSwap({path: network.get_submodule(path) for path in plan.swapped}, device)
        with swap.kept_away():
            model.to(device)
    else:
        model.to(device)
    model.device = device
    if plan.checkpointing:
        _checkpoint(model)


def _checkpoint(model: Any) -> None:
    checkpoint_blocks(blocks(model.diffusion_model), in_training)


def _free(device: torch.device) -> int | None:
    """Bytes free on a card; a device that shares the machine's memory has no need of a plan."""
    return None if device.type in ("cpu", "mps") else int(management.get_free_memory(device))


def _out_of_inference(module: torch.nn.Module) -> torch.nn.Module:
    """A copy whose buffers can take part in training, which those that the host made during a prompt cannot."""
    copied = copy.copy(module)
    copied._buffers = {name: None if buffer is None else buffer.clone() for name, buffer in module._buffers.items()}
    return copied


def _check_latents(latent_format: Any, vae: Any) -> None:
    needed, given = latent_format.latent_channels, vae.latent_channels
    if needed != given:
        raise AtelierError(f"This VAE makes latents of {given} channels, and the model takes {needed}.",
                           "Connect the VAE that belongs to the model.")
