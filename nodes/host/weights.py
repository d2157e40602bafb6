"""Load models into the host's MODEL, CLIP and VAE, and patch these with a LoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import comfy.lora
import comfy.lora_convert
import comfy.model_base
import comfy.sd
import folder_paths

from ...atelier.errors import AtelierError

if TYPE_CHECKING:
    import torch

    from ...atelier.models.handle import DiffusersModel
    from ...atelier.models.layout import ModelLayout
    from ...atelier.models.prediction import Prediction


def load_model(model: DiffusersModel) -> tuple[Any, Any, Any]:
    """Load a checkpoint or a diffusers folder as the host's MODEL, CLIP and VAE.

    Raises:
        AtelierError: the host does not know the model, or it lacks a text encoder or VAE.
    """
    from ...atelier.models.layout import read_layout, surplus_tokens
    from ...atelier.models.prediction import read_prediction
    from ...atelier.models.text_keys import VOCABULARY

    embeddings = folder_paths.get_folder_paths("embeddings")
    layout = read_layout(model.path)
    prediction = read_prediction(layout, model.prediction_type)
    if surplus := surplus_tokens(layout):
        raise AtelierError(f"The {' and the '.join(surplus)} of {model.path} has more than CLIP's {VOCABULARY} tokens, "
                           "which ComfyUI cannot load.", "Write the model with Export Checkpoint, which leaves the "
                           "others out, and load that file.")
    if model.is_folder:
        state = _original_state(layout, prediction)
        loaded = comfy.sd.load_state_dict_guess_config(state, embedding_directory=embeddings)
    else:
        loaded = comfy.sd.load_checkpoint_guess_config(str(model.path), embedding_directory=embeddings)
    if loaded is None:
        raise AtelierError(f"ComfyUI does not know the kind of model in {model.path}.", "Choose another model.")
    patcher, clip, vae = loaded[:3]
    missing = [name for name, part in (("MODEL", patcher), ("CLIP", clip), ("VAE", vae)) if part is None]
    if missing:
        raise AtelierError(f"{model.path} has no {', '.join(missing)}.",
                           "Load the missing part with another node, or choose a complete model.")
    return _with_prediction(patcher, prediction), clip, vae


def _original_state(layout: ModelLayout, prediction: Prediction) -> dict[str, torch.Tensor]:
    """A folder's tensors under their names in a checkpoint, with the markers of its prediction type.

    The host's own loader of diffusers folders supports neither shards nor models of unusual shape.
    """
    from ...atelier.convert.single_file import checkpoint_names, markers
    from ...atelier.models.lazy_tensor import to_original

    state = {name: tensor.read() for name, tensor in markers(layout, prediction).items()}
    for component in layout.components.values():
        table, prefix = checkpoint_names(component, layout.family)
        tensors = to_original(table, component.tensors, component.folder)
        state |= {prefix + name: tensor.read() for name, tensor in tensors.items()}
    return state


def _with_prediction(patcher: Any, prediction: Prediction) -> Any:
    """The model with the handle's prediction type, patched where the host detected another one."""
    types = {comfy.model_base.ModelType.EPS: "epsilon", comfy.model_base.ModelType.V_PREDICTION: "v_prediction"}
    if types.get(patcher.model.model_type, prediction.type) == prediction.type:
        return patcher
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    host_name = "eps" if prediction.type == "epsilon" else prediction.type
    return ModelSamplingDiscrete().patch(patcher, host_name, zsnr=prediction.zero_terminal_snr)[0]


def apply_lora(model: Any, clip: Any, state: dict[str, torch.Tensor], strength_model: float,
               strength_clip: float) -> tuple[Any, Any]:
    """Add a LoRA's patches to clones of `model` and `clip` (either may be None); the originals do not change.

    Raises:
        AtelierError: no tensor of the LoRA fits; the host itself would silently apply nothing.
    """
    from . import other_kinds  # with the tables of LoRA files, which loading the pack does not need

    keys: dict[str, Any] = {}
    if model is not None:
        keys = comfy.lora.model_lora_keys_unet(model.model, keys)
    if clip is not None:
        keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, keys)
    patches, rest = other_kinds.split(state, keys)
    patches |= comfy.lora.load_lora(comfy.lora_convert.convert_lora(rest), keys)
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
