"""The table of Stable Diffusion families, and the recommended sampling settings of each kind.

A *family* is an architecture and is read from the shapes of the tensors. A *kind* is a family trained or distilled in
a certain way (v-prediction, Turbo, Lightning): the weights do not show it, so it is decided by the prediction type,
marker tensors or the file's name, and the report always says by which.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ..errors import AtelierError

PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class TextEncoderSpec:
    """How a family uses one of its text encoders."""

    folder: str
    """Name of the component's folder in a diffusers model: "text_encoder" or "text_encoder_2"."""
    architecture: str
    """"clip" (OpenAI's naming, quick GELU) or "open_clip" (fused attention projections in checkpoints, GELU)."""
    layer: str
    """Which hidden state conditions the UNet: "last" or "penultimate" (the one before the last layer, not
    normalised)."""
    pad_token: str = "<|endoftext|>"
    """What fills a prompt up to 77 tokens; OpenCLIP was trained with zeros, which is the token "!"."""
    pooled: bool = False
    """Whether its projected sentence embedding conditions the UNet too."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture."""

    key: str
    name: str
    pipeline: str
    """The diffusers pipeline class that runs it."""
    text_encoders: tuple[TextEncoderSpec, ...]
    latent_scale: float
    """Factor that gives latents unit variance: latents = scale * VAE output."""
    native_size: int
    """Pixels of a side that the model was trained at."""
    modelspec: str
    """Architecture identifier of the modelspec metadata standard."""
    in_channels: int = 4


_CLIP_L = TextEncoderSpec("text_encoder", "clip", "last")
_CLIP_H = TextEncoderSpec("text_encoder", "open_clip", "last", pad_token="!")
"""SD2 uses the layer before the last, normalised; its diffusers format drops the last layer, so that this
layer becomes the last."""
_XL_TEXT = (TextEncoderSpec("text_encoder", "clip", "penultimate"),
            TextEncoderSpec("text_encoder_2", "open_clip", "penultimate", pad_token="!", pooled=True))

FAMILIES: dict[str, Family] = {family.key: family for family in (
    Family(
        key="sd1", name="Stable Diffusion 1.x", pipeline="StableDiffusionPipeline", text_encoders=(_CLIP_L,),
        latent_scale=0.18215, native_size=512, modelspec="stable-diffusion-v1"),
    Family(
        key="sd1-inpainting", name="Stable Diffusion 1.x inpainting", pipeline="StableDiffusionInpaintPipeline",
        text_encoders=(_CLIP_L,), latent_scale=0.18215, native_size=512, modelspec="stable-diffusion-v1-inpainting",
        in_channels=9),
    Family(
        key="sd2", name="Stable Diffusion 2.x", pipeline="StableDiffusionPipeline", text_encoders=(_CLIP_H,),
        latent_scale=0.18215, native_size=512, modelspec="stable-diffusion-v2-512"),
    Family(
        key="sd2-inpainting", name="Stable Diffusion 2.x inpainting", pipeline="StableDiffusionInpaintPipeline",
        text_encoders=(_CLIP_H,), latent_scale=0.18215, native_size=512, modelspec="stable-diffusion-v2-inpainting",
        in_channels=9),
    Family(
        key="x4-upscaler", name="Stable Diffusion x4 upscaler", pipeline="StableDiffusionUpscalePipeline",
        text_encoders=(_CLIP_H,), latent_scale=0.08333, native_size=512, modelspec="stable-diffusion-x4-upscaler",
        in_channels=7),
    Family(
        key="sdxl", name="Stable Diffusion XL", pipeline="StableDiffusionXLPipeline", text_encoders=_XL_TEXT,
        latent_scale=0.13025, native_size=1024, modelspec="stable-diffusion-xl-v1-base"),
    Family(
        key="sdxl-inpainting", name="Stable Diffusion XL inpainting", pipeline="StableDiffusionXLInpaintPipeline",
        text_encoders=_XL_TEXT, latent_scale=0.13025, native_size=1024, modelspec="stable-diffusion-xl-v1-inpainting",
        in_channels=9),
    Family(
        key="sdxl-refiner", name="Stable Diffusion XL refiner", pipeline="StableDiffusionXLImg2ImgPipeline",
        text_encoders=_XL_TEXT[1:], latent_scale=0.13025, native_size=1024,
        modelspec="stable-diffusion-xl-v1-refiner"),
)}


@dataclass(frozen=True, kw_only=True)
class SamplerAdvice:
    """Settings that suit a kind of model, in the words of the host's sampler nodes."""

    sampler: str
    scheduler: str
    steps: int
    cfg: float
    size: int
    note: str = ""

    def __str__(self) -> str:
        text = (f"sampler {self.sampler}, scheduler {self.scheduler}, {self.steps} steps, cfg {self.cfg:g}, "
                f"{self.size} x {self.size}")
        return f"{text} ({self.note})" if self.note else text


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A family trained or distilled in a certain way, and how to sample it."""

    key: str
    name: str
    family: str
    advice: SamplerAdvice
    prediction_type: str = "epsilon"
    scheduler: str = "EulerDiscreteScheduler"
    """diffusers' class name, for the folder's scheduler."""
    scheduler_config: dict[str, Any] = field(default_factory=dict)
    """What differs from `scaled_linear` betas 0.00085 to 0.012 over 1000 steps, leading spacing with an offset of
    one."""
    hint: str = ""
    """Regular expression that a file name (lower case) of this kind matches; empty where the weights or the user
    decide."""


TRAILING_SPACING = {"timestep_spacing": "trailing", "steps_offset": 0}
_STEPS = r"(?:^|[^0-9]){}[ _-]?steps?"

KINDS: tuple[Kind, ...] = (
    # Of several kinds that fit, the first counts.
    Kind(
        key="sd1", name="Stable Diffusion 1.x", family="sd1",
        advice=SamplerAdvice(sampler="dpmpp_2m", scheduler="karras", steps=25, cfg=7.0, size=512),
        scheduler="PNDMScheduler", scheduler_config={"skip_prk_steps": True, "set_alpha_to_one": False}),
    Kind(
        key="sd1-v", name="Stable Diffusion 1.x, v-prediction", family="sd1",
        advice=SamplerAdvice(sampler="euler", scheduler="normal", steps=25, cfg=7.0, size=512,
                             note="needs the host's ModelSamplingDiscrete node set to v_prediction"),
        prediction_type="v_prediction"),
    Kind(
        key="sd1-inpainting", name="Stable Diffusion 1.x inpainting", family="sd1-inpainting",
        advice=SamplerAdvice(sampler="dpmpp_2m", scheduler="karras", steps=25, cfg=7.0, size=512,
                             note="feed it VAEEncodeForInpaint or InpaintModelConditioning"),
        scheduler="PNDMScheduler", scheduler_config={"skip_prk_steps": True, "set_alpha_to_one": False}),
    Kind(
        key="sd-turbo", name="SD-Turbo", family="sd2",
        advice=SamplerAdvice(sampler="euler_ancestral", scheduler="sgm_uniform", steps=1, cfg=1.0, size=512,
                             note="1 to 4 steps; no negative prompt"),
        scheduler_config=TRAILING_SPACING, hint=r"sd[ _-]?turbo"),
    Kind(
        key="sd2-v", name="Stable Diffusion 2.x, 768, v-prediction", family="sd2",
        advice=SamplerAdvice(sampler="dpmpp_2m", scheduler="karras", steps=25, cfg=7.0, size=768),
        prediction_type="v_prediction", scheduler="DDIMScheduler",
        scheduler_config={"set_alpha_to_one": False, "clip_sample": False}),
    Kind(
        key="sd2", name="Stable Diffusion 2.x, 512, epsilon", family="sd2",
        advice=SamplerAdvice(sampler="dpmpp_2m", scheduler="karras", steps=25, cfg=7.0, size=512),
        scheduler="PNDMScheduler", scheduler_config={"skip_prk_steps": True, "set_alpha_to_one": False}),
    Kind(
        key="sd2-inpainting", name="Stable Diffusion 2.x inpainting", family="sd2-inpainting",
        advice=SamplerAdvice(sampler="dpmpp_2m", scheduler="karras", steps=25, cfg=7.0, size=512,
                             note="feed it VAEEncodeForInpaint or InpaintModelConditioning"),
        scheduler="PNDMScheduler", scheduler_config={"skip_prk_steps": True, "set_alpha_to_one": False}),
    Kind(
        key="x4-upscaler", name="Stable Diffusion x4 upscaler", family="x4-upscaler",
        advice=SamplerAdvice(sampler="euler", scheduler="normal", steps=20, cfg=7.0, size=512,
                             note="the small picture goes in through SD_4XUpscale_Conditioning"),
        prediction_type="v_prediction", scheduler="DDIMScheduler",
        scheduler_config={"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "scaled_linear",
                          "set_alpha_to_one": False, "clip_sample": False}),
    Kind(
        key="sdxl-lightning-2", name="SDXL-Lightning, 2 steps", family="sdxl",
        advice=SamplerAdvice(sampler="euler", scheduler="sgm_uniform", steps=2, cfg=1.0, size=1024),
        scheduler_config=TRAILING_SPACING, hint=rf"lightning.*{_STEPS.format(2)}"),
    Kind(
        key="sdxl-lightning-4", name="SDXL-Lightning, 4 steps", family="sdxl",
        advice=SamplerAdvice(sampler="euler", scheduler="sgm_uniform", steps=4, cfg=1.0, size=1024),
        scheduler_config=TRAILING_SPACING, hint=rf"lightning.*{_STEPS.format(4)}"),
    Kind(
        key="sdxl-lightning-8", name="SDXL-Lightning, 8 steps", family="sdxl",
        advice=SamplerAdvice(sampler="euler", scheduler="sgm_uniform", steps=8, cfg=1.0, size=1024),
        scheduler_config=TRAILING_SPACING, hint=rf"lightning.*{_STEPS.format(8)}"),
    Kind(
        key="sdxl-turbo", name="SDXL Turbo", family="sdxl",
        advice=SamplerAdvice(sampler="euler_ancestral", scheduler="sgm_uniform", steps=1, cfg=1.0, size=512,
                             note="1 to 4 steps; no negative prompt"),
        scheduler="EulerAncestralDiscreteScheduler", scheduler_config=TRAILING_SPACING, hint=r"xl.*turbo|turbo.*xl"),
    Kind(
        key="sdxl-v", name="Stable Diffusion XL, v-prediction", family="sdxl",
        advice=SamplerAdvice(sampler="euler", scheduler="normal", steps=28, cfg=5.0, size=1024),
        prediction_type="v_prediction"),
    Kind(
        key="sdxl", name="Stable Diffusion XL", family="sdxl",
        advice=SamplerAdvice(sampler="dpmpp_2m", scheduler="karras", steps=30, cfg=7.0, size=1024)),
    Kind(
        key="sdxl-inpainting", name="Stable Diffusion XL inpainting", family="sdxl-inpainting",
        advice=SamplerAdvice(sampler="dpmpp_2m", scheduler="karras", steps=30, cfg=7.0, size=1024,
                             note="feed it VAEEncodeForInpaint or InpaintModelConditioning")),
    Kind(
        key="sdxl-refiner", name="Stable Diffusion XL refiner", family="sdxl-refiner",
        advice=SamplerAdvice(sampler="dpmpp_2m", scheduler="karras", steps=30, cfg=7.0, size=1024,
                             note="only the last fifth of the steps, on the base's latents")),
)


def family_of(key: str) -> Family:
    """The family with this key.

    Raises:
        AtelierError: there is none.
    """
    if key not in FAMILIES:
        raise AtelierError(f"{key!r} is no model family.", f"Choose one of: {', '.join(FAMILIES)}.")
    return FAMILIES[key]


def kind_of(family: str, prediction_type: str, file_name: str = "") -> Kind:
    """The kind of model that a family, a prediction type and a file's name point to.

    Distilled kinds (Turbo, Lightning) are found by name alone, because nothing in the weights tells them from their
    base model.
    """
    name = file_name.lower()
    fitting = [kind for kind in KINDS if kind.family == family and (not kind.hint or re.search(kind.hint, name))]
    if not fitting:
        raise AtelierError(f"{family!r} is no model family.", f"Choose one of: {', '.join(FAMILIES)}.")
    return next((kind for kind in fitting if kind.prediction_type == prediction_type), fitting[-1])
