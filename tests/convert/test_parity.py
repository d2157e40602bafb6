"""The host, reading the single file, and diffusers, reading the folder made of it, compute the same numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from kit.checkpoints import write_sd1, write_sd2, write_sdxl, write_sdxl_refiner, write_x4_upscaler
from kit.host_forward import host_forward
from kit.offline import no_network
from torch import Tensor

from atelier.convert import to_folder
from atelier.models.load import load_text
from atelier.models.open import open_model

pytestmark = pytest.mark.host

PROMPT = "a cat wearing neon-glasses, 12 Ölfarben, l'été"
TOLERANCE = 1e-3


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape and theirs.std() > 1e-3
    return float((ours - theirs).norm() / theirs.norm())


def inputs(unet_config: dict, vae_levels: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    given = {"x": normal(2, unet_config["in_channels"], 16, 24), "t": torch.tensor([7.0, 801.0]),
             "context": normal(2, 77, unet_config["cross_attention_dim"]), "z": normal(1, 4, 8, 12),
             "pixels": normal(1, 3, 8 << (vae_levels - 1), 12 << (vae_levels - 1)).clamp(-1, 1)}
    if unet_config.get("num_class_embeds"):
        given["y"] = torch.tensor([20, 250])
    return given


def sizes_and_crops(unet: UNet2DConditionModel, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """SDXL's second input as diffusers takes it; the host's `y`, the finished vector, is added to `given`.

    Six numbers for each picture, five for the refiner, each as a sinusoid of 256 values (Podell et al. 2023, 2.2).
    """
    numbers = 5 if unet.config.cross_attention_dim == 1280 else 6
    ids = torch.tensor([[1024.0, 768, 0, 16, 1024, 1024], [512, 512, 0, 0, 512, 6]])[:, :numbers]
    pooled = torch.randn(2, unet.config.projection_class_embeddings_input_dim - 256 * numbers)
    angles = ids.flatten()[:, None] * torch.exp(-math.log(10000) * torch.arange(128) / 128)
    given["y"] = torch.cat([pooled, torch.cat([angles.cos(), angles.sin()], dim=1).reshape(2, -1)], dim=1)
    return {"text_embeds": pooled, "time_ids": ids}


def check(source: Path, tmp_path: Path, folder_too: bool = False) -> None:
    """Compare the two; `folder_too` has the host read the folder as well, by its DiffusersLoader."""
    folder = tmp_path / "folder"
    to_folder(source, folder)
    with no_network(), torch.inference_mode():
        unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32)
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32)
        given = inputs(dict(unet.config), len(vae.config.block_out_channels))
        extra: dict[str, Any] = {}
        if unet.config.addition_embed_type == "text_time":
            extra["added_cond_kwargs"] = sizes_and_crops(unet, given)
        elif "y" in given:
            extra["class_labels"] = given["y"]
        ours = {"unet": unet(given["x"], given["t"], given["context"], **extra).sample,
                "decoded": vae.decode(given["z"]).sample, "encoded": vae.encode(given["pixels"]).latent_dist.mean}
        del unet, vae
        # The same as the family's pipeline gives, which test_models_load shows.
        text = load_text(open_model(folder)).encode([PROMPT])
    ours["embeds"] = text.embeds
    if text.pooled is not None:
        ours["pooled"] = text.pooled
    for read in (source, folder) if folder_too else (source,):
        host = host_forward(read, given, PROMPT, tmp_path)
        for name, tensor in ours.items():
            assert relative(tensor, host[name]) < TOLERANCE, (name, read)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["small", "two_level", "full"])
def test_sd1(shape: str, tmp_path: Path) -> None:
    # The host's DiffusersLoader knows UNets of published shapes alone.
    check(write_sd1(tmp_path / "model.safetensors", shape=shape), tmp_path, folder_too=shape == "full")


@pytest.mark.slow
def test_sd2(tmp_path: Path) -> None:
    check(write_sd2(tmp_path / "model.safetensors"), tmp_path)


@pytest.mark.slow
def test_sdxl(tmp_path: Path) -> None:
    check(write_sdxl(tmp_path / "model.safetensors"), tmp_path)


@pytest.mark.slow
def test_sdxl_refiner(tmp_path: Path) -> None:
    check(write_sdxl_refiner(tmp_path / "model.safetensors"), tmp_path)


@pytest.mark.slow
def test_x4_upscaler(tmp_path: Path) -> None:
    check(write_x4_upscaler(tmp_path / "model.safetensors", shape="small"), tmp_path)
