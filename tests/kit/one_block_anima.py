"""A file of Anima with one block of the published width, which the host takes for granted. Its values are so often the
same that the file has a hundredth of its size; only a pickle can hold that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import torch

CONFIG = {
    "image_model": "anima", "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16,
    "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 2048,
    "num_blocks": 1, "num_heads": 16, "crossattn_emb_channels": 1024, "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True, "pos_emb_interpolation": "crop", "use_adaln_lora": True, "adaln_lora_dim": 256,
    "rope_h_extrapolation_ratio": 4.0, "rope_w_extrapolation_ratio": 4.0, "rope_t_extrapolation_ratio": 1.0,
    "extra_per_block_abs_pos_emb": False, "rope_enable_fps_modulation": False}


@contextmanager
def one_layer_for_text() -> Iterator[None]:
    """Have the host make the part that reads the text with one layer in place of six, which no file tells it."""
    import comfy.ldm.anima.model as anima

    with mock.patch.object(anima, "LLMAdapter", partial(anima.LLMAdapter, num_layers=1)):
        yield


def write_anima(path: Path) -> Path:
    """Write it, in bfloat16; 222 million parameters, or 138 with one layer for the text."""
    import comfy.supported_models

    made = comfy.supported_models.Anima(dict(CONFIG))
    made.set_inference_dtype(torch.bfloat16, None)
    with torch.device("meta"):
        network = made.get_model({}, "", device="meta").diffusion_model
    pool = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).bfloat16()
    state = {}
    for name, tensor in network.state_dict().items():
        *rows, width = tensor.shape or (1,)
        few = pool[:width] * (width ** -0.5 if rows else 0.1)
        state[name] = few.expand(*rows, width) if math.prod(rows) else few
    torch.save(state, path)
    return path
