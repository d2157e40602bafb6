"""The table of Stable Diffusion families.

A *family* is an architecture and is read from the shapes of the tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

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

    @property
    def inpaints(self) -> bool:
        """Whether its UNet is given a mask (1 channel) and a masked picture (4) beside the noisy latents."""
        return self.in_channels == 9


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


def family_of(key: str) -> Family:
    """The family with this key.

    Raises:
        AtelierError: there is none.
    """
    if key not in FAMILIES:
        raise AtelierError(f"{key!r} is no model family.", f"Choose one of: {', '.join(FAMILIES)}.")
    return FAMILIES[key]
