"""What is known of each Stable Diffusion family: one table, and the advice on how to sample each kind.

A *family* is an architecture and is read from the shapes of the tensors. A *kind* is a family trained or distilled in
a certain way (v-prediction, Turbo, Lightning): the weights do not tell, so it is decided by the prediction type, by
marker tensors, or by the file's name, and the report always says by which.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ..errors import AtelierError

PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class TextEncoderSpec:
    """What a family does with one of its text encoders."""

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


@dataclass(frozen=True)
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
"""SD2 uses the layer before the last, normalised; its diffusers form drops the last layer, so that it becomes the
last."""
_XL_TEXT = (TextEncoderSpec("text_encoder", "clip", "penultimate"),
            TextEncoderSpec("text_encoder_2", "open_clip", "penultimate", pad_token="!", pooled=True))

FAMILIES: dict[str, Family] = {family.key: family for family in (
    Family("sd1", "Stable Diffusion 1.x", "StableDiffusionPipeline", (_CLIP_L,), 0.18215, 512,
           "stable-diffusion-v1"),
    Family("sd1-inpainting", "Stable Diffusion 1.x inpainting", "StableDiffusionInpaintPipeline", (_CLIP_L,),
           0.18215, 512, "stable-diffusion-v1-inpainting", in_channels=9),
    Family("sd2", "Stable Diffusion 2.x", "StableDiffusionPipeline", (_CLIP_H,), 0.18215, 512,
           "stable-diffusion-v2-512"),
    Family("sd2-inpainting", "Stable Diffusion 2.x inpainting", "StableDiffusionInpaintPipeline", (_CLIP_H,),
           0.18215, 512, "stable-diffusion-v2-inpainting", in_channels=9),
    Family("x4-upscaler", "Stable Diffusion x4 upscaler", "StableDiffusionUpscalePipeline", (_CLIP_H,),
           0.08333, 512, "stable-diffusion-x4-upscaler", in_channels=7),
    Family("sdxl", "Stable Diffusion XL", "StableDiffusionXLPipeline", _XL_TEXT, 0.13025, 1024,
           "stable-diffusion-xl-v1-base"),
    Family("sdxl-inpainting", "Stable Diffusion XL inpainting", "StableDiffusionXLInpaintPipeline", _XL_TEXT,
           0.13025, 1024, "stable-diffusion-xl-v1-inpainting", in_channels=9),
    Family("sdxl-refiner", "Stable Diffusion XL refiner", "StableDiffusionXLImg2ImgPipeline", _XL_TEXT[1:],
           0.13025, 1024, "stable-diffusion-xl-v1-refiner"),
)}


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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
    Kind("sd1", "Stable Diffusion 1.x", "sd1", SamplerAdvice("dpmpp_2m", "karras", 25, 7.0, 512),
         scheduler="PNDMScheduler", scheduler_config={"skip_prk_steps": True, "set_alpha_to_one": False}),
    Kind("sd1-v", "Stable Diffusion 1.x, v-prediction", "sd1", SamplerAdvice("euler", "normal", 25, 7.0, 512,
         "needs the host's ModelSamplingDiscrete node set to v_prediction"), prediction_type="v_prediction"),
    Kind("sd1-inpainting", "Stable Diffusion 1.x inpainting", "sd1-inpainting",
         SamplerAdvice("dpmpp_2m", "karras", 25, 7.0, 512, "feed it VAEEncodeForInpaint or InpaintModelConditioning"),
         scheduler="PNDMScheduler", scheduler_config={"skip_prk_steps": True, "set_alpha_to_one": False}),
    Kind("sd-turbo", "SD-Turbo", "sd2", SamplerAdvice("euler_ancestral", "sgm_uniform", 1, 1.0, 512,
         "1 to 4 steps; no negative prompt"), scheduler_config=TRAILING_SPACING, hint=r"sd[ _-]?turbo"),
    Kind("sd2-v", "Stable Diffusion 2.x, 768, v-prediction", "sd2", SamplerAdvice("dpmpp_2m", "karras", 25, 7.0, 768),
         prediction_type="v_prediction", scheduler="DDIMScheduler",
         scheduler_config={"set_alpha_to_one": False, "clip_sample": False}),
    Kind("sd2", "Stable Diffusion 2.x, 512, epsilon", "sd2", SamplerAdvice("dpmpp_2m", "karras", 25, 7.0, 512),
         scheduler="PNDMScheduler", scheduler_config={"skip_prk_steps": True, "set_alpha_to_one": False}),
    Kind("sd2-inpainting", "Stable Diffusion 2.x inpainting", "sd2-inpainting",
         SamplerAdvice("dpmpp_2m", "karras", 25, 7.0, 512, "feed it VAEEncodeForInpaint or InpaintModelConditioning"),
         scheduler="PNDMScheduler", scheduler_config={"skip_prk_steps": True, "set_alpha_to_one": False}),
    Kind("x4-upscaler", "Stable Diffusion x4 upscaler", "x4-upscaler",
         SamplerAdvice("euler", "normal", 20, 7.0, 512, "the small picture goes in through SD_4XUpscale_Conditioning"),
         prediction_type="v_prediction", scheduler="DDIMScheduler",
         scheduler_config={"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "scaled_linear",
                           "set_alpha_to_one": False, "clip_sample": False}),
    Kind("sdxl-lightning-2", "SDXL-Lightning, 2 steps", "sdxl", SamplerAdvice("euler", "sgm_uniform", 2, 1.0, 1024),
         scheduler_config=TRAILING_SPACING, hint=rf"lightning.*{_STEPS.format(2)}"),
    Kind("sdxl-lightning-4", "SDXL-Lightning, 4 steps", "sdxl", SamplerAdvice("euler", "sgm_uniform", 4, 1.0, 1024),
         scheduler_config=TRAILING_SPACING, hint=rf"lightning.*{_STEPS.format(4)}"),
    Kind("sdxl-lightning-8", "SDXL-Lightning, 8 steps", "sdxl", SamplerAdvice("euler", "sgm_uniform", 8, 1.0, 1024),
         scheduler_config=TRAILING_SPACING, hint=rf"lightning.*{_STEPS.format(8)}"),
    Kind("sdxl-turbo", "SDXL Turbo", "sdxl", SamplerAdvice("euler_ancestral", "sgm_uniform", 1, 1.0, 512,
         "1 to 4 steps; no negative prompt"), scheduler="EulerAncestralDiscreteScheduler",
         scheduler_config=TRAILING_SPACING, hint=r"xl.*turbo|turbo.*xl"),
    Kind("sdxl-v", "Stable Diffusion XL, v-prediction", "sdxl", SamplerAdvice("euler", "normal", 28, 5.0, 1024),
         prediction_type="v_prediction"),
    Kind("sdxl", "Stable Diffusion XL", "sdxl", SamplerAdvice("dpmpp_2m", "karras", 30, 7.0, 1024)),
    Kind("sdxl-inpainting", "Stable Diffusion XL inpainting", "sdxl-inpainting",
         SamplerAdvice("dpmpp_2m", "karras", 30, 7.0, 1024, "feed it VAEEncodeForInpaint or InpaintModelConditioning")),
    Kind("sdxl-refiner", "Stable Diffusion XL refiner", "sdxl-refiner",
         SamplerAdvice("dpmpp_2m", "karras", 30, 7.0, 1024, "only the last fifth of the steps, on the base's latents")),
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
