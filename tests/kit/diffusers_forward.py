"""Run a diffusers folder through diffusers' own classes: random inputs, and what its parts make of them.

`apart` does so in a process of its own, for models too large for the process that runs the tests.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]


def forward(folder: Path, slim: bool = False) -> tuple[Tensors, Tensors]:
    """Inputs for `kit.host_forward`, and outputs by the names it gives them: `unet`, `decoded`, `encoded`.

    Args:
        folder: A diffusers folder, its weights in float16.
        slim: Hold the UNet's weights in float16 and make each layer float32 while it computes. The numbers are the
            same, in half the memory.
    """
    with torch.inference_mode():
        kind = torch.float16 if slim else torch.float32
        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=kind)
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32)
        if slim:
            _float_while_computing(unet)
        given = inputs(dict(unet.config), len(vae.config.block_out_channels))
        extra: dict[str, Any] = {}
        if unet.config.addition_embed_type == "text_time":
            extra["added_cond_kwargs"] = sizes_and_crops(unet, given)
        elif "y" in given:
            extra["class_labels"] = given["y"]
        return given, {"unet": unet(given["x"], given["t"], given["context"], **extra).sample,
                       "decoded": vae.decode(given["z"]).sample,
                       "encoded": vae.encode(given["pixels"]).latent_dist.mean}


def inputs(unet_config: dict, vae_levels: int) -> Tensors:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    given = {"x": normal(2, unet_config["in_channels"], 16, 24), "t": torch.tensor([7.0, 801.0]),
             "context": normal(2, 77, unet_config["cross_attention_dim"]), "z": normal(1, 4, 8, 12),
             "pixels": normal(1, 3, 8 << (vae_levels - 1), 12 << (vae_levels - 1)).clamp(-1, 1)}
    if unet_config.get("num_class_embeds"):
        given["y"] = torch.tensor([20, 250])
    return given


def sizes_and_crops(unet: UNet2DConditionModel, given: Tensors) -> Tensors:
    """SDXL's second input as diffusers takes it; the host's `y`, the finished vector, is added to `given`.

    Six numbers for each picture, five for the refiner, each as a sinusoid of 256 values (Podell et al. 2023, 2.2).
    """
    numbers = 5 if unet.config.cross_attention_dim == 1280 else 6
    ids = torch.tensor([[1024.0, 768, 0, 16, 1024, 1024], [512, 512, 0, 0, 512, 6]])[:, :numbers]
    pooled = torch.randn(2, unet.config.projection_class_embeddings_input_dim - 256 * numbers)
    angles = ids.flatten()[:, None] * torch.exp(-math.log(10000) * torch.arange(128) / 128)
    given["y"] = torch.cat([pooled, torch.cat([angles.cos(), angles.sin()], dim=1).reshape(2, -1)], dim=1)
    return {"text_embeds": pooled, "time_ids": ids}


def apart(folder: Path, work: Path) -> tuple[Tensors, Tensors]:
    """`forward` with little memory in a process of its own; `work` receives what passes between the two."""
    done = subprocess.run([sys.executable, __file__, json.dumps([str(folder), str(work)])], capture_output=True,
                          text=True, encoding="utf-8", timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return load_file(work / "given.safetensors"), load_file(work / "made.safetensors")


def _float_while_computing(model: torch.nn.Module) -> None:
    for module in model.modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_pre_hook(lambda layer, given: layer.float() and None)
            module.register_forward_hook(lambda layer, given, made: layer.half() and None)


def _main(folder: str, work: str) -> None:
    given, made = forward(Path(folder), slim=True)
    for name, tensors in (("given", given), ("made", made)):
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, Path(work) / f"{name}.safetensors")


if __name__ == "__main__":
    # The modules beside this file must not stand before others of the same name.
    sys.path.pop(0)
    _main(*json.loads(sys.argv[1]))
