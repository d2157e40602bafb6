"""The kinds of Stable Diffusion models, and the recommended sampling settings of each.

A *kind* is a family trained or distilled in a certain way (v-prediction, Turbo, Lightning): the weights do not show
it, so it is decided by the prediction type, marker tensors or the file's name, and the report always says by which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import AtelierError
from .families import FAMILIES


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
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
"""Between the words of a name such as "v51HyperVAE"."""
_STEPS = r"(?:^|[^0-9]){}[ _-]?steps?"


def _distilled(family: str, size: int) -> Iterator[Kind]:
    """Models with a distillation merged in, which their makers name in the file. Steps and guidance are the usual ones
    of such merges; of distilled models with a number of steps in the name, their papers'."""
    words = {
        "lightning": ("Lightning", "lightning"), "hyper": ("Hyper", r"(?<![a-z])hyper(?![a-z])(?![ _-]?real)"),
        "lcm": ("LCM", r"(?<![a-z])lcm(?![a-z])"), "dmd": ("DMD", r"(?<![a-z])dmd2?(?![a-z])"),
        "turbo": ("Turbo", "turbo"),
    }
    full = {"sd1": "Stable Diffusion 1.x", "sdxl": "SDXL"}[family]
    for key in ("lightning", "hyper"):
        name, hint = words[key]
        for steps in (2, 4, 8):
            yield Kind(
                key=f"{family}-{key}-{steps}", name=f"{full}-{name}, {steps} steps", family=family,
                advice=SamplerAdvice(sampler="euler", scheduler="sgm_uniform", steps=steps, cfg=1.0, size=size),
                scheduler_config=TRAILING_SPACING, hint=rf"{hint}.*{_STEPS.format(steps)}")
    for key, steps, cfg in (("dmd", 4, 1.0), ("lcm", 6, 1.5)):
        name, hint = words[key]
        yield Kind(
            key=f"{family}-{key}", name=f"{full}, {name}", family=family,
            advice=SamplerAdvice(sampler="lcm", scheduler="sgm_uniform", steps=steps, cfg=cfg, size=size,
                                 note="4 to 8 steps; cfg 1 to 2"),
            scheduler="LCMScheduler", scheduler_config=TRAILING_SPACING, hint=hint)
    for key in ("lightning", "hyper", "turbo"):
        name, hint = words[key]
        yield Kind(
            key=f"{family}-{key}", name=f"{full}, {name} merge", family=family,
            advice=SamplerAdvice(sampler="dpmpp_sde", scheduler="karras", steps=6, cfg=2.0, size=size,
                                 note="4 to 8 steps; cfg 1 to 2"),
            scheduler_config=TRAILING_SPACING, hint=hint)


KINDS: tuple[Kind, ...] = (
    # Of several kinds that fit, the first counts.
    *_distilled("sd1", 512),
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
        key="sdxl-turbo", name="SDXL Turbo", family="sdxl",
        advice=SamplerAdvice(sampler="euler_ancestral", scheduler="sgm_uniform", steps=1, cfg=1.0, size=512,
                             note="1 to 4 steps; no negative prompt"),
        scheduler="EulerAncestralDiscreteScheduler", scheduler_config=TRAILING_SPACING, hint=r"sd[ _-]?xl[ _-]?turbo"),
    *_distilled("sdxl", 1024),
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


def kind_of(family: str, prediction_type: str, file_name: str = "") -> Kind:
    """The kind of model that a family, a prediction type and a file's name point to.

    Distilled kinds (Turbo, Lightning, Hyper, LCM, DMD) are found by name alone, because nothing in the weights tells
    them from their base model.
    """
    name = _HUMP.sub("_", file_name).lower()
    fitting = [kind for kind in KINDS if kind.family == family and (not kind.hint or re.search(kind.hint, name))]
    if not fitting:
        raise AtelierError(f"{family!r} is no model family.", f"Choose one of: {', '.join(FAMILIES)}.")
    return next((kind for kind in fitting if kind.prediction_type == prediction_type), fitting[-1])
