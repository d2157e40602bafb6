"""The nodes that convert a LoRA and merge it into a checkpoint, called in this process as the host calls them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.checkpoints import write_sd1
from kit.pack import pack_module
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.host

LAYER = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"


def of_the_hosts_trainer(width: int = 32) -> dict[str, torch.Tensor]:
    """A LORA_MODEL as core's trainer gives it: one adapter, and whole differences of biases."""
    stem = f"diffusion_model.{LAYER}"
    return {f"{stem}.lora_up.weight": torch.randn(width, 2), f"{stem}.lora_down.weight": torch.randn(2, width),
            f"{stem}.alpha": torch.tensor(1.0), "diffusion_model.out.2.diff_b": torch.randn(4),
            "diffusion_model.out.0.diff_b": torch.randn(width)}


def test_convert_lora_gives_name_weights_and_report(nodes: dict[str, Any], models: Path) -> None:
    state = of_the_hosts_trainer()
    save_file(state, models / "loras" / "core.safetensors")
    node = nodes["AtelierConvertLora"]
    (lora, format, name) = node.GET_SCHEMA().inputs
    assert (lora.options, format.options, name.default) == (["core.safetensors"], ["kohya", "diffusers", "peft"], "")
    made, weights, report = node.execute("core.safetensors", "diffusers", "").result
    assert made == "core-diffusers.safetensors"
    assert "3 of 5 keys matched" in report and "diffusion_model.out.2.diff_b" in report
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    scale = weights[f"{stem}.alpha"] / 2
    made = weights[f"{stem}.lora_up.weight"] @ weights[f"{stem}.lora_down.weight"] * scale
    expected = state[f"diffusion_model.{LAYER}.lora_up.weight"] @ state[f"diffusion_model.{LAYER}.lora_down.weight"] / 2
    torch.testing.assert_close(made, expected)


def test_the_same_conversion_is_found_again_and_no_other_file_is_overwritten(nodes: dict[str, Any], models: Path
                                                                            ) -> None:
    save_file(of_the_hosts_trainer(), models / "loras" / "core.safetensors")
    execute = nodes["AtelierConvertLora"].execute
    first = execute("core.safetensors", "kohya", "fox").result
    before = (models / "loras" / "fox.safetensors").stat().st_mtime_ns
    assert execute("core.safetensors", "kohya", "fox").result[0] == first[0] == "fox.safetensors"
    assert (models / "loras" / "fox.safetensors").stat().st_mtime_ns == before
    assert execute("core.safetensors", "diffusers", "fox").result[0] == "fox-2.safetensors"
    folder = execute("core.safetensors", "peft", "sub/fox").result[0]
    assert Path(folder) == Path("sub/fox")
    (lora, *_) = nodes["AtelierConvertLora"].GET_SCHEMA().inputs
    assert "PEFT: sub/fox" in lora.options
    assert execute("PEFT: sub/fox", "kohya", "").result[0].replace("\\", "/") == "sub/fox-kohya.safetensors"


def test_merging_says_what_of_the_lora_was_left_out(nodes: dict[str, Any], pack: ModuleType, models: Path) -> None:
    checkpoint = write_sd1(models / "checkpoints" / "tiny.safetensors", shape="tiny", dtype="float32")
    model = pack_module(pack, "atelier.models.open").open_model(checkpoint)
    state, execute = of_the_hosts_trainer(), nodes["AtelierExportCheckpoint"].execute
    name, report = execute(model, "merged", "keep", 0.5, state).result
    assert "LoRA merged at 0.5: 3 of 5 keys matched" in report and "diffusion_model.out.0.diff_b" in report
    key = f"model.diffusion_model.{LAYER}.weight"
    before, after = load_file(checkpoint), load_file(models / "checkpoints" / name)
    delta = state[f"diffusion_model.{LAYER}.lora_up.weight"] @ state[f"diffusion_model.{LAYER}.lora_down.weight"] / 2
    torch.testing.assert_close(after[key], before[key] + 0.5 * delta)
    assert {k for k in before if k in after and not torch.equal(before[k], after[k])} == {key}


def test_a_lora_of_another_model_is_not_passed_over_in_silence(nodes: dict[str, Any], pack: ModuleType, models: Path
                                                               ) -> None:
    checkpoint = write_sd1(models / "checkpoints" / "tiny.safetensors", shape="tiny")
    model = pack_module(pack, "atelier.models.open").open_model(checkpoint)
    flux = {f"diffusion_model.double_blocks.0.img_attn.proj.lora_{half}.weight": torch.randn(4, 4)
            for half in ("up", "down")}
    error = pack_module(pack, "atelier.errors").AtelierError
    with pytest.raises(error, match="none of its 2 keys belongs"):
        nodes["AtelierExportCheckpoint"].execute(model, "merged", "keep", 1.0, flux)
    with pytest.raises(error, match="do not fit tiny"):
        nodes["AtelierExportCheckpoint"].execute(model, "merged", "keep", 1.0, of_the_hosts_trainer(width=64))
    assert [path.name for path in (models / "checkpoints").iterdir()] == ["tiny.safetensors"]
