"""Weights into the host's own objects: MODEL, CLIP and VAE. The one file that meets `comfy.sd` and `comfy.lora`."""

from __future__ import annotations

from typing import Any

import comfy.lora
import comfy.lora_convert
import torch

from ..atelier.errors import AtelierError


def apply_lora(model: Any, clip: Any, state: dict[str, torch.Tensor], strength_model: float,
               strength_clip: float) -> tuple[Any, Any]:
    """Clones of `model` and `clip` (either may be None) with a LoRA's patches added; the originals stay as they are.

    Raises:
        AtelierError: nothing in the LoRA fits, which the host itself would pass over in silence.
    """
    keys: dict[str, Any] = {}
    if model is not None:
        keys = comfy.lora.model_lora_keys_unet(model.model, keys)
    if clip is not None:
        keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, keys)
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(state), keys)
    if not patches:
        raise AtelierError(f"None of the LoRA's {len(state)} tensors fits this model.",
                           "Use a LoRA of the same family, or bring it to kohya keys with Convert LoRA.")
    return _patched(model, patches, strength_model), _patched(clip, patches, strength_clip)


def _patched(target: Any, patches: dict[str, Any], strength: float) -> Any:
    if target is None or strength == 0:
        return target
    clone = target.clone()
    clone.add_patches(patches, strength)
    return clone
