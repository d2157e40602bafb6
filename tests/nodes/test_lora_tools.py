"""Resize LoRA, Merge LoRAs and Extract LoRA: files, names, and results that are found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kit.checkpoints import write_sd1
from kit.loras import layers, random_lora, tiny_models
from kit.node_calls import run_node
from safetensors.torch import load_file

from atelier.lora.file import save_lora
from atelier.models.open import open_model

pytestmark = pytest.mark.host


@pytest.fixture
def loras(models: Path) -> Path:
    """The folder of LoRAs, with two of rank 4."""
    for name, seed in (("one", 0), ("two", 1)):
        found = {name: layer for name, layer in layers("unet", tiny_models("sd1")["unet"]).items() if "attn" in name}
        save_lora(models / "loras" / f"{name}.safetensors", random_lora(found, rank=4, alpha=4.0, seed=seed))
    return models / "loras"


def change(state: dict[str, torch.Tensor], stem: str) -> torch.Tensor:
    down, up = state[f"{stem}.lora_down.weight"].double(), state[f"{stem}.lora_up.weight"].double()
    return up @ down * (state[f"{stem}.alpha"].item() / len(down))


STEM = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


def test_a_lora_is_resized_once(nodes: dict[str, Any], loras: Path) -> None:
    node = nodes["AtelierResizeLora"]
    name, weights, report = run_node(node, lora="one.safetensors", rank=2)
    assert name == "my-lora-small.safetensors" and "rank 4 -> 2" in report
    stored = load_file(loras / name)
    assert stored[f"{STEM}.lora_down.weight"].dtype == torch.float16
    values = torch.linalg.svdvals(change(load_file(loras / "one.safetensors"), STEM))
    torch.testing.assert_close(torch.linalg.svdvals(change(weights, STEM))[:2], values[:2], rtol=1e-2, atol=0)
    before = (loras / name).stat().st_mtime_ns
    assert run_node(node, lora="one.safetensors", rank=2)[0] == name
    assert (loras / name).stat().st_mtime_ns == before
    assert run_node(node, lora="one.safetensors", rank=1)[0] == "my-lora-small-2.safetensors"


def test_two_loras_are_merged_at_their_strengths(nodes: dict[str, Any], loras: Path) -> None:
    name, weights, report = run_node(nodes["AtelierMergeLoras"], first="one.safetensors", second="two.safetensors",
                                     second_strength=-0.5, save_dtype="fp32", name="sub/both")
    assert Path(name) == Path("sub/both.safetensors") and "exact" in report
    one, two = (load_file(loras / f"{name}.safetensors") for name in ("one", "two"))
    torch.testing.assert_close(change(weights, STEM), change(one, STEM) - 0.5 * change(two, STEM), rtol=1e-5, atol=1e-7)


def test_what_was_tuned_is_extracted(nodes: dict[str, Any], models: Path) -> None:
    tuned, base = (open_model(write_sd1(models / "checkpoints" / f"{seed}.safetensors", "tiny", seed=seed))
                   for seed in (0, 1))
    node = nodes["AtelierExtractLora"]
    name, weights, report = run_node(node, tuned=tuned, base=base, rank=3, text_encoders=False)
    assert name == "my-extracted-lora.safetensors"
    assert all(key.startswith("lora_unet_") for key in weights)
    assert "0.safetensors - 1.safetensors" in report and "rank " in report
    assert run_node(node, tuned=base, base=tuned, rank=3, text_encoders=False)[0] == "my-extracted-lora-2.safetensors"
