"""The host, reading the single file, and diffusers, reading the folder made of it, compute the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kit.checkpoints import write_sd1, write_sd2, write_sdxl, write_sdxl_refiner, write_x4_upscaler
from kit.host_forward import host_forward
from kit.offline import no_network
from torch import Tensor

from atelier.convert import to_folder
from atelier.models.load import load_text, load_unet, load_vae
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


def diffusers_forward(folder: Path, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with diffusers and transformers alone, as their users load a folder."""
    import diffusers

    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    unet, vae = pipeline.unet.float(), pipeline.vae.float()
    extra = {}
    if unet.config.addition_embed_type == "text_time":
        # The host takes the finished vector; diffusers makes it of a pooled embedding and six (five) numbers.
        width = unet.config.projection_class_embeddings_input_dim - _time_width(unet)
        extra["added_cond_kwargs"] = {"text_embeds": given["pooled_in"], "time_ids": given["time_ids"]}
        assert given["pooled_in"].shape[1] == width
    if "y" in given and unet.config.num_class_embeds:
        extra["class_labels"] = given["y"]
    with torch.inference_mode():
        return {"unet": unet(given["x"], given["t"], given["context"], **extra).sample,
                "decoded": vae.decode(given["z"]).sample, "encoded": vae.encode(given["pixels"]).latent_dist.mean}


def _time_width(unet: torch.nn.Module) -> int:
    return unet.config.addition_time_embed_dim * (5 if unet.config.cross_attention_dim == 1280 else 6)


def check(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    to_folder(source, folder)
    model = open_model(source)
    unet, vae = load_unet(model), load_vae(model)
    given = inputs(dict(unet.config), len(vae.config.block_out_channels))
    if unet.config.addition_embed_type == "text_time":
        ids = 5 if model.family == "sdxl-refiner" else 6
        given["pooled_in"] = torch.randn(2, unet.config.projection_class_embeddings_input_dim - 256 * ids)
        given["time_ids"] = torch.tensor([[1024.0, 768, 0, 16, 1024, 1024], [512, 512, 0, 0, 512, 6]])[:, :ids]
        times = unet.add_time_proj(given["time_ids"].flatten()).reshape(2, -1)
        given["y"] = torch.cat([given["pooled_in"], times], dim=1)

    with no_network():
        theirs = diffusers_forward(folder, given)
        text = load_text(open_model(folder))
    batch = text.encode([PROMPT])
    host = host_forward(source, given, PROMPT, tmp_path)
    assert relative(theirs["unet"], host["unet"]) < TOLERANCE
    assert relative(theirs["decoded"], host["decoded"]) < TOLERANCE
    assert relative(theirs["encoded"], host["encoded"]) < TOLERANCE
    assert relative(batch.embeds, host["embeds"]) < TOLERANCE
    if batch.pooled is not None:
        assert relative(batch.pooled, host["pooled"]) < TOLERANCE

    # Our own loading, straight from the file, is the same again, to the bit.
    with torch.inference_mode():
        assert torch.equal(vae.decode(given["z"]).sample, theirs["decoded"])
    direct = load_text(model).encode([PROMPT])
    assert torch.equal(direct.embeds, batch.embeds)


@pytest.mark.parametrize("shape", ["small", "two_level", pytest.param("full", marks=pytest.mark.slow)])
def test_sd1(shape: str, tmp_path: Path) -> None:
    check(write_sd1(tmp_path / "model.safetensors", shape=shape), tmp_path)


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
    check(write_x4_upscaler(tmp_path / "model.safetensors", shape="full"), tmp_path)
