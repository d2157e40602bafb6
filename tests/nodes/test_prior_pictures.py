"""Prior Pictures, called as the host calls it: models on disk, and models that the host has loaded."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from kit.checkpoints import write_sd1
from kit.host_families import open_small
from kit.node_calls import run_node
from kit.pack import pack_module
from kit.pictures import write_pictures
from PIL import Image

pytestmark = pytest.mark.host


@pytest.fixture
def training_set(nodes: dict[str, Any], models: Path, in_input: Path) -> Any:
    write_pictures(in_input, [(64, 64), (80, 64)])
    return run_node(nodes["AtelierImageFolder"], folder=in_input.name, captions="fixed", caption="a photo of ohwx dog",
                    trigger="ohwx", resolution=64)[0]


def test_a_model_on_disk_draws_them_once(pack: ModuleType, nodes: dict[str, Any], models: Path, training_set: Any
                                         ) -> None:
    model = pack_module(pack, "atelier.models.open").open_model(write_sd1(models / "tiny.safetensors", "tiny"))
    with torch.inference_mode():  # as the host runs nodes
        data, sheet = run_node(nodes["AtelierPriorPictures"], model=model, training_set=training_set, count=3, steps=1)
    assert [(sample.prior, sample.captions) for sample in data.samples[2:]] == [(True, ("a photo of dog",))] * 3
    assert sheet.shape[0] == 1
    folder = models / "user" / "atelier" / "prior"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(before) == 3
    again, _ = run_node(nodes["AtelierPriorPictures"], model=model, training_set=training_set, count=3, steps=1)
    assert again == data
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("family", ["flux", "anima"])
def test_a_loaded_model_draws_as_cores_sampler_does(pack: ModuleType, nodes: dict[str, Any], tmp_path: Path,
                                                    training_set: Any, family: str) -> None:
    import nodes as core  # pyright: ignore[reportMissingImports]

    opened = open_small(pack, family, tmp_path)
    with torch.inference_mode():
        data, _ = run_node(nodes["AtelierPriorPictures"], model=opened.host, training_set=training_set, count=2,
                           prompt="a dog", negative="a cat", seed=5, steps=3, cfg=2.5)
        (latent,) = core.EmptyLatentImage().generate(64, 64)
        positive, negative = (opened.clip.encode_from_tokens_scheduled(text) for text in ("a dog", "a cat"))
        (drawn,) = core.common_ksampler(opened.patcher, 6, 3, 2.5, "euler", "simple", positive, negative, latent)
        expected = opened.vae.decode(drawn["samples"]).reshape(-1, 64, 64, 3)[0]
    found = np.asarray(Image.open(data.samples[-1].image))
    assert np.array_equal(found, (expected.clamp(0, 1) * 255).round().byte().numpy())
    assert found.std() > 1, "a picture"
