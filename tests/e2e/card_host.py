"""ComfyUI on a graphics card: training beside the host's own models, and the card's memory given back.

`make card` runs this file. The small model takes megabytes, so that what is left behind would be seen.
"""

from __future__ import annotations

from typing import Any

import pytest
from kit.graphs import Graph
from kit.host import Host
from kit.shapes import draw_shapes

pytestmark = [pytest.mark.gpu, pytest.mark.host]
MIB = 2**20


def active(host: Host) -> int:
    """Bytes of the card that tensors of the host's process take."""
    device = host.get_json("/system_stats")["devices"][0]
    assert device["type"] == "cuda", "the host computes on the processor"
    return device["torch_vram_total"] - device["torch_vram_free"]


def training(checkpoint: str, folder: str, **options: Any) -> Graph:
    return Graph(
        model=("AtelierOpenModel", {"model": checkpoint, "prediction_type": "auto"}),
        data=("AtelierImageFolder", {"folder": folder, "resolution": 64}),
        options=("AtelierTrainingOptions", {"monitor": "off", "patience": 0, "sample_steps": 2, **options}),
        train=("AtelierTrainLora", {"model": ["model", 0], "training_set": ["data", 0], "options": ["options", 0],
                                    "name": "card", "length": 8, "sample_prompt": "a red circle"}))


def drawing(checkpoint: str) -> Graph:
    return Graph(
        load=("CheckpointLoaderSimple", {"ckpt_name": checkpoint}),
        text=("CLIPTextEncode", {"clip": ["load", 1], "text": "a red circle"}),
        latent=("EmptyLatentImage", {"width": 64, "height": 64}),
        sample=("KSampler", {"model": ["load", 0], "positive": ["text", 0], "negative": ["text", 0],
                             "latent_image": ["latent", 0], "steps": 2}),
        decode=("VAEDecode", {"samples": ["sample", 0], "vae": ["load", 2]}),
        show=("PreviewImage", {"images": ["decode", 0]}))


def test_a_training_gives_the_card_back(host: Host, checkpoint: str) -> None:
    draw_shapes(host.base / "input" / "card")
    host.free()
    before = active(host)
    for seed in range(3):  # the host's models are on the card when each training begins
        drawn = host.queue(drawing(checkpoint).change("sample", seed=seed).fill(host))
        assert drawn.status == "success", drawn.error
        assert active(host) > before + 10 * MIB
        trained = host.queue(training(checkpoint, "card").change("train", seed=seed).fill(host))
        assert trained.status == "success", trained.error
    host.free()
    assert active(host) < before + 2 * MIB
