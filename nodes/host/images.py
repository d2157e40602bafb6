"""Pictures in the host's IMAGE format, and models that map one picture to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from PIL.Image import Image


def to_image_tensor(pictures: Sequence[Image]) -> torch.Tensor:
    """Convert PIL pictures of one size to the host's IMAGE: `[B, H, W, 3]`, float 0..1, on CPU."""
    import numpy as np

    from ...atelier.pictures.rgb import to_rgb

    return torch.from_numpy(np.stack([np.asarray(to_rgb(p), dtype=np.float32) / 255 for p in pictures]))


def from_image_tensor(images: torch.Tensor) -> list[Image]:
    """Convert the host's IMAGE `[B, H, W, C]`, float 0..1 (other values are clamped), to PIL pictures."""
    from PIL import Image

    levels = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return [Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture) for picture in levels]


def run_image_model(model: Any, picture: torch.Tensor) -> torch.Tensor:
    """Run an UPSCALE_MODEL on one picture `[H, W, 3]`, with the host's memory management; the result may be larger.

    A picture of up to 512 pixels a side is not tiled.
    """
    from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel

    return ImageUpscaleWithModel.execute(model, picture[None]).result[0][0]
