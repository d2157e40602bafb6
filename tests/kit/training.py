"""A UNet of a few thousand weights and a training set in memory: what the trainer's own tests need, in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from kit.device import chosen_device
from torch import Tensor

from atelier.dataset.cache import EncodedItem
from atelier.train.unet_denoiser import UNetDenoiser

WIDTH = 32


def tiny_unet(seed: int = 0) -> UNet2DConditionModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return UNet2DConditionModel(
            block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=WIDTH)


def scheduler_config(prediction_type: str = "epsilon") -> dict:
    config = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                           prediction_type=prediction_type).config
    # `_use_default_values` would make `from_config` forget what a test changes.
    return {key: value for key, value in config.items() if not key.startswith("_")}


def denoiser(unet: UNet2DConditionModel | None = None, dtype: torch.dtype = torch.float32) -> UNetDenoiser:
    device = chosen_device()
    return denoiser_of((unet or tiny_unet()).to(device, dtype), device, dtype)


def denoiser_of(unet: UNet2DConditionModel, device: torch.device, dtype: torch.dtype) -> UNetDenoiser:
    """Of a UNet that is there already, with captions from the cache."""
    return UNetDenoiser(unet=unet, scheduler_config=scheduler_config(), text=None, device=device, dtype=dtype)


@dataclass
class MemorySet:
    """Stands for an `EncodedSet`: each picture has its own caption, so that there is something to learn."""

    items: tuple[EncodedItem, ...]
    masks: bool = False

    @staticmethod
    def of(count: int = 8, size: int = 8, *, prior: int = 0, repeats: int = 1, flips: bool = False, captions: int = 1
           ) -> MemorySet:
        return MemorySet(tuple(
            EncodedItem(index=i, height=size, width=size, repeats=repeats, prior=i >= count, captions=captions,
                        flips=flips, group="", digest=str(i)) for i in range(count + prior)))

    def moments(self, index: int, flip: bool) -> tuple[Tensor, Tensor]:
        item = self.items[index]
        mean = _normal(index, 4, item.height, item.width) * 0.3 + 1.5
        return (mean.flip(-1) if flip else mean), torch.full_like(mean, 0.02)

    def text(self, index: int, variant: int) -> dict[str, Tensor]:
        return {"embeds": _normal(1000 + index * 10 + variant, 77, WIDTH)}

    def class_text(self, index: int, variant: int) -> dict[str, Tensor] | None:
        """Prior pictures' captions have no trigger."""
        return None if self.items[index].prior else {"embeds": _normal(5000 + index * 10 + variant, 77, WIDTH)}

    def empty_text(self) -> dict[str, Tensor]:
        return {"embeds": torch.zeros(77, WIDTH)}

    def caption(self, index: int, variant: int) -> str:
        return f"picture {index}, variant {variant}"

    def mask(self, index: int, flip: bool) -> Tensor | None:
        return None

    def time_ids(self, index: int, flip: bool) -> Tensor:
        return torch.zeros(6)


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
