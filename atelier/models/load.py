"""Load a model's components directly from the folder or the single file, with no copy on disk.

Modules are built without memory and adopt tensors that are read once. They are in evaluation mode with gradients off;
the trainer enables gradients where it needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn

from ..errors import AtelierError
from .foreign_errors import explained
from .handle import DiffusersModel
from .layout import Component, ModelLayout
from .read_ahead import read_as
from .stated_config import TEXT_FIELDS
from .text import TextStack
from .tokenizer import load_tokenizer

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

Module = TypeVar("Module", bound=nn.Module)


def load_unet(model: DiffusersModel, *, dtype: torch.dtype = torch.float32,
              device: torch.device | str = "cpu") -> UNet2DConditionModel:
    """The UNet.

    Raises:
        AtelierError: the model cannot be read, or lacks tensors.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    component = _component(model, "unet")
    with _explained(model, component), _no_memory():
        unet = cast("UNet2DConditionModel", UNet2DConditionModel.from_config(_public(component)))
    return _load_weights(unet, component, dtype, device)


def load_unet_config(model: DiffusersModel) -> dict[str, Any]:
    """What diffusers' `UNet2DConditionModel.from_config` takes.

    Raises:
        AtelierError: the model has no UNet.
    """
    return dict(_public(_component(model, "unet")))


def load_vae(model: DiffusersModel, *, dtype: torch.dtype = torch.float32,
             device: torch.device | str = "cpu") -> AutoencoderKL:
    """The VAE. Its configuration has the handle's scale and shift of latents, whatever the files leave out.

    A VAE whose configuration says that it overflows in float16 (`force_upcast`, as SDXL's) is loaded in float32.

    Raises:
        AtelierError: the model cannot be read, or has no VAE.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    component = _component(model, "vae")
    with _explained(model, component), _no_memory():
        vae = cast("AutoencoderKL", AutoencoderKL.from_config({
            **_public(component), "scaling_factor": model.latent_scale, "shift_factor": model.latent_shift}))
    if dtype == torch.float16 and component.config.get("force_upcast"):
        dtype = torch.float32
    return _load_weights(vae, component, dtype, device)


def load_text(model: DiffusersModel, *, dtype: torch.dtype = torch.float32,
              device: torch.device | str = "cpu") -> TextStack:
    """The tokenizers and text encoders.

    Raises:
        AtelierError: the model cannot be read, lacks a text encoder, or no tokenizer is installed.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    layout = model.layout
    encoders: dict[str, nn.Module] = {}
    for spec in layout.family.text_encoders:
        component = _component_of(layout, spec.folder)
        kind = CLIPTextModelWithProjection if spec.pooled else CLIPTextModel
        with _explained(model, component), _no_memory():
            encoder = kind(CLIPTextConfig(**_plain_config(component)))
        encoders[spec.folder] = _load_weights(encoder, component, dtype, device)
    return TextStack(layout.family, _tokenizers(model, layout), encoders)


def load_tokenizers(model: DiffusersModel) -> TextStack:
    """The tokenizers without encoders: enough to count tokens.

    Raises:
        AtelierError: the model cannot be read, or no tokenizer is installed.
    """
    layout = model.layout
    return TextStack(layout.family, _tokenizers(model, layout), {})


def load_scheduler_config(model: DiffusersModel) -> dict[str, Any]:
    """What a diffusers scheduler's `from_config` takes: betas, spacing, and the handle's prediction type.

    Raises:
        AtelierError: the model was trained with other noise than Stable Diffusion's.
    """
    return model.noise_schedule.as_config()


def _tokenizers(model: DiffusersModel, layout: ModelLayout) -> dict[str, Any]:
    tokenizers: dict[str, Any] = {}
    for spec in layout.family.text_encoders:
        own = model.path / spec.folder.replace("text_encoder", "tokenizer")
        tokenizers[spec.folder] = load_tokenizer(spec.pad_token, own if (own / "merges.txt").is_file() else None)
    return tokenizers


def _component(model: DiffusersModel, name: str) -> Component:
    return _component_of(model.layout, name)


def _component_of(layout: ModelLayout, name: str) -> Component:
    if name not in layout.components:
        raise AtelierError(f"{layout.path} has no {name}.", "Choose a complete checkpoint or diffusers folder.")
    return layout.components[name]


def _plain_config(component: Component) -> dict[str, Any]:
    """Those fields of a transformers configuration that build a text encoder."""
    return {key: value for key, value in component.config.items() if key in TEXT_FIELDS}


def _public(component: Component) -> dict[str, Any]:
    """A diffusers configuration without the fields that describe its writer."""
    return {key: value for key, value in component.config.items()
            if not key.startswith("_") or key == "_use_default_values"}


def _explained(model: DiffusersModel, component: Component) -> AbstractContextManager[None]:
    return explained(f"The configuration of the {component.folder} in {model.path}",
                     "Download or copy the model again.")


def _no_memory() -> Any:
    from accelerate import init_empty_weights

    # Buffers are small numbers computed on the spot, such as CLIP's position ids; no file holds them.
    return init_empty_weights(include_buffers=False)


def _load_weights(module: Module, component: Component, dtype: torch.dtype, device: torch.device | str) -> Module:
    state = _state(module, component.tensors, component.folder, dtype, device)
    module.load_state_dict(state, strict=True, assign=True)
    return module.to(device).requires_grad_(False).eval()


def _state(module: nn.Module, tensors: Mapping[str, Any], folder: str, dtype: torch.dtype,
           device: torch.device | str) -> dict[str, torch.Tensor]:
    """The tensors under the names of the installed version of the module, checked before any is read."""
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    # transformers 5 dropped `text_model.` from CLIPTextModel's own names.
    stored = {name if name in expected else name.removeprefix("text_model."): tensor
              for name, tensor in tensors.items()}
    missing = sorted(expected.keys() - stored.keys())
    if missing:
        raise AtelierError(f"The {folder} lacks {len(missing)} tensors, such as {missing[0]!r}.",
                           "Choose a complete checkpoint.")
    for name, shape in expected.items():
        if stored[name].shape != shape:
            found = list(stored[name].shape)
            raise AtelierError(f"The {folder}'s tensor {name!r} has the shape {found}, not {list(shape)}.",
                               "The file is damaged or of another kind.")
    return read_as({name: stored[name] for name in expected}, dtype, device)
