"""The host, reading the single file, and diffusers, reading the folder made of it, compute the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kit import diffusers_forward
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


def check(source: Path, tmp_path: Path, published: bool = False) -> None:
    """Compare the two. A `published` model is large, and the host reads its folder as well, by its DiffusersLoader."""
    folder = tmp_path / "folder"
    to_folder(source, folder)
    with no_network(), torch.inference_mode():
        given, ours = diffusers_forward.apart(folder, tmp_path) if published else diffusers_forward.forward(folder)
        # The same as the family's pipeline gives, which test_models_load shows.
        text = load_text(open_model(folder)).encode([PROMPT])
    ours["embeds"] = text.embeds
    if text.pooled is not None:
        ours["pooled"] = text.pooled
    reads = (source, folder) if published else (source,)
    for read, host in zip(reads, host_forward(reads, given, PROMPT, tmp_path), strict=True):
        for name, tensor in ours.items():
            assert relative(tensor, host[name]) < TOLERANCE, (name, read)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["small", "full"])
def test_sd1(shape: str, tmp_path: Path) -> None:
    # The host's DiffusersLoader knows UNets of published shapes alone.
    check(write_sd1(tmp_path / "model.safetensors", shape=shape), tmp_path, published=shape == "full")


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
