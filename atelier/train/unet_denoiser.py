"""Stable Diffusion's UNet of diffusers as what a run trains, with its text encoders where they are trained too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..models.text import TextBatch, TextStack
from .denoiser import Conditions, stacked
from .objective import DiffusionObjective
from .pixel_loss import PixelLoss
from .request.levels import LevelConfig
from .request.lora import LoraConfig, layer_pattern
from .request.recipe import LossConfig

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


@dataclass(frozen=True, kw_only=True)
class UNetDenoiser:
    """A `Denoiser` (see `atelier.train.denoiser`)."""

    unet: UNet2DConditionModel
    scheduler_config: Mapping[str, Any]
    text: TextStack | None
    """Only when the text encoder is trained; otherwise its output comes from the cache."""
    device: torch.device
    dtype: torch.dtype
    uncapturable: str = ""
    """Why its passes cannot be recorded as CUDA graphs; "" where they can."""

    @property
    def network(self) -> nn.Module:
        """The UNet."""
        return self.unet

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """The UNet, and the text encoders that are trained."""
        return {"unet": self.unet, **(self.text.encoders if self.text else {})}

    @property
    def encodes_captions(self) -> bool:
        """Whether the text encoder is trained."""
        return self.text is not None

    def adapted_layers(self, config: LoraConfig) -> Mapping[str, str]:
        """Those of diffusers' UNet and of CLIP."""
        return {component: layer_pattern(component, config) for component in self.components}

    def objective(self, loss: LossConfig, levels: LevelConfig) -> DiffusionObjective:
        """The model's own noise schedule and prediction type; all timesteps that are trained are equally likely."""
        return DiffusionObjective.of(self.scheduler_config, self.device, min_snr_gamma=loss.min_snr_gamma,
                                     pixel_loss=PixelLoss(loss), limits=(levels.min_timestep, levels.max_timestep))

    def predict(self, network: Callable[..., Any], noisy: Tensor, levels: Tensor, conditions: Conditions,
                captions: tuple[str, ...]) -> Tensor:
        """The UNet's output, from "embeds" [B, 77, D], for SDXL "pooled" [B, P] and "time_ids" [B, 6], and for an
        inpainting model "inpainting" [B, 5, h, w], which joins the noisy latents."""
        given = stacked(conditions)
        if "inpainting" in given:
            noisy = torch.cat([noisy, given["inpainting"]], dim=1)
        text = TextBatch(given["embeds"], given.get("pooled")) if self.text is None else self.text.encode(captions)
        added = None
        if text.pooled is not None:
            added = {"text_embeds": text.pooled, "time_ids": given["time_ids"]}
        return network(noisy.to(self.dtype), levels, text.embeds, added_cond_kwargs=added, return_dict=False)[0]
