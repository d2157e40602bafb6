"""Which of the host's models can be trained, and what each is called in a LoRA's header."""

from __future__ import annotations

import re
from typing import Any

from ....atelier.errors import AtelierError

_REFUSED = {
    "a video model": ("SVD_img2vid", "SV3D_u", "SV3D_p", "GenmoMochi", "LTXV", "LTXAV", "HunyuanVideo", "CosmosVideo",
                      "WAN21", "WAN22", "CogVideoX", "Kandinsky5", "SeedVR2", "MiniMaxH3", "HunyuanVideo15"),
    "an audio model": ("StableAudio1", "StableAudio3", "ACEStep", "ACEStep15", "MiniMaxMusic3"),
    "a 3-D model": ("Hunyuan3Dv2", "Hunyuan3Dv2_1", "Trellis2", "TripoSplat", "Stable_Zero123"),
    "a model that works on pixels, without a VAE": ("PixelDiTT2I", "PiD", "ChromaRadiance", "ZImagePixelSpace",
                                                    "HiDreamO1"),
    "a model that changes pictures by instruction, whose training needs pairs": (
        "SD15_instructpix2pix", "SDXL_instructpix2pix", "Lotus", "HunyuanImage21Refiner"),
    "an upscaler or a refiner": ("SD_X4Upscaler", "SDXLRefiner", "ImageModelRefiner"),
    "a detector": ("RT_DETR_v4", "SAM3", "SAM31", "DepthAnything3"),
    "a model in stages": ("StableCascade_B", "StableCascade_C"),
}
"""By what they are, the host's classes (`comfy.model_base`) that no run here can learn from."""

_PICTURES = ("Kandinsky5Image", "HunyuanImage21", "Anima", "CosmosPredict2", "QwenImage", "Krea2", "JoyImage",
             "MageFlow", "ErnieImage", "Ideogram4")
"""Classes for pictures that derive from, or share latents with, those for video."""

_ARCHITECTURE = {
    "SDXL": "stable-diffusion-xl-v1-base", "SD3": "stable-diffusion-3", "Flux": "flux-1-dev", "Flux2": "flux-2",
    "Lumina2": "lumina-2", "QwenImage": "qwen-image", "Chroma": "chroma", "HunyuanImage21": "hunyuan-image-2.1",
    "Anima": "anima", "Krea2": "krea-2", "AuraFlow": "auraflow", "HiDream": "hidream-i1", "PixArt": "pixart",
    "Omnigen2": "omnigen2",
}
"""`modelspec.architecture` by class: the standard's names (https://github.com/Stability-AI/ModelSpec) and those that
trainers write where it has none."""


def check_kind(model: Any) -> None:
    """Refuse a model that learns no pictures in latents.

    Args:
        model: The host's `BaseModel`.

    Raises:
        AtelierError: it says what the model is, and what can be trained.
    """
    names = [parent.__name__ for parent in type(model).__mro__]
    what = "" if any(name in _PICTURES for name in names) else next(
        (kind for kind, classes in _REFUSED.items() if any(name in classes for name in names)), "")
    dimensions = model.latent_format.latent_dimensions
    if not what and dimensions == 3 and not any(name in _PICTURES for name in names):
        what = "a model with latents in time, most likely for video"
    if not what and dimensions not in (2, 3):
        what = "a model whose latents are no pictures"
    if what:
        raise AtelierError(f"{names[0]} is {what}.",
                           "Load a model for pictures: Stable Diffusion, Flux, Qwen-Image, Z-Image, Anima, Krea 2, "
                           "Chroma and others like them can be trained.")
    if getattr(model, "concat_keys", ()):
        raise AtelierError(f"This {names[0]} is an inpainting or editing model: it takes a second picture.",
                           "Train on the ordinary version of the model. Stable Diffusion's inpainting models are "
                           "trained from their file: Open Model in place of Loaded Model.")


_DISTILLED = re.compile(r"turbo|lightning|schnell|hyper|lcm|distill|klein(?!.*base)|[248][-_]?steps?", re.IGNORECASE)
"""In the names of files whose models draw in a few steps."""


def distilled(model: Any, name: str) -> str:
    """What suffers where a distilled model is trained; empty for others.

    Args:
        model: The host's `BaseModel`.
        name: Of its file.
    """
    if _DISTILLED.search(name):
        return (f"{name} seems to be distilled for few steps: training undoes that bit by bit, and pictures may need "
                "more steps afterwards. Train on the base version where there is one; its LoRA serves this one too.")
    if model.model_config.unet_config.get("guidance_embed"):
        return (f"{name} was distilled with guidance: it is told a strength of it while it is trained, as ComfyUI does "
                "by default, and learns more slowly than a model with real guidance.")
    return ""


def is_stable_diffusion(model: Any) -> bool:
    """Whether the network is the UNet of SD1, SD2 or SDXL, whose LoRA files have names of their own."""
    return type(model.diffusion_model).__name__ == "UNetModel"


def base_version(model: Any) -> str:
    """`ss_base_model_version`: kohya's names for Stable Diffusion, the host's for others."""
    config = model.model_config.unet_config
    if is_stable_diffusion(model):
        return {768: "sd_v1", 1024: "sd_v2", 2048: "sdxl_base_v1-0"}.get(config.get("context_dim"), "sd_v1")
    return str(config.get("image_model", type(model).__name__.lower()))


def architecture(model: Any) -> str:
    """`modelspec.architecture`, without the adapter's part."""
    for parent in type(model).__mro__:
        if parent.__name__ in _ARCHITECTURE:
            return _ARCHITECTURE[parent.__name__]
    if is_stable_diffusion(model):
        return "stable-diffusion-v2-512" if base_version(model) == "sd_v2" else "stable-diffusion-v1"
    return type(model).__name__.lower()
