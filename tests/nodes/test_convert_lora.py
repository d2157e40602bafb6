"""Convert LoRA: formats, names and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kit.core_lora import LAYER, core_lora
from safetensors.torch import save_file

pytestmark = pytest.mark.host


def test_outputs_are_name_weights_and_report(nodes: dict[str, Any], models: Path) -> None:
    state = {**core_lora(biases=False), "diffusion_model.elsewhere.diff_b": torch.randn(4)}
    save_file(state, models / "loras" / "core.safetensors")
    node = nodes["AtelierConvertLora"]
    (lora, format, new_name) = node.GET_SCHEMA().inputs
    assert (lora.options, new_name.default) == (["core.safetensors"], "")
    assert format.options == ["kohya", "diffusers", "peft"]
    name, weights, report = node.execute("core.safetensors", "diffusers", "").result
    assert name == "core-diffusers.safetensors"
    assert "3 of 4 keys matched" in report and "diffusion_model.elsewhere.diff_b" in report
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    scale = weights[f"{stem}.alpha"] / 2
    product = weights[f"{stem}.lora_up.weight"] @ weights[f"{stem}.lora_down.weight"] * scale
    expected = state[f"diffusion_model.{LAYER}.lora_up.weight"] @ state[f"diffusion_model.{LAYER}.lora_down.weight"] / 2
    torch.testing.assert_close(product, expected)


def test_a_graph_of_windows_finds_its_lora(nodes: dict[str, Any], models: Path) -> None:
    (models / "loras" / "sub").mkdir()
    save_file(core_lora(biases=False), models / "loras" / "sub" / "core.safetensors")
    execute = nodes["AtelierConvertLora"].execute
    assert Path(execute("sub\\core.safetensors", "peft", "").result[0]) == Path("sub/core-peft")
    assert Path(execute("PEFT: sub\\core-peft", "kohya", "").result[0]) == Path("sub/core-peft-kohya.safetensors")


def test_a_repeated_conversion_is_found_and_no_other_file_is_overwritten(nodes: dict[str, Any], models: Path
                                                                            ) -> None:
    save_file(core_lora(biases=False), models / "loras" / "core.safetensors")
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


def test_a_transformers_lora_in_diffusers_form_goes_on_in_the_graph_as_comfyui_reads_it(nodes: dict[str, Any],
                                                                                        models: Path) -> None:
    from safetensors.torch import load_file

    key = "diffusion_model.double_blocks.0.img_attn.qkv"
    state = {f"{key}.lora_A.weight": torch.randn(2, 8), f"{key}.lora_B.weight": torch.randn(24, 2),
             f"{key}.alpha": torch.tensor(2.0)}
    save_file(state, models / "loras" / "flux.safetensors")
    name, weights, report = nodes["AtelierConvertLora"].execute("flux.safetensors", "diffusers", "").result
    assert weights.keys() == state.keys() and "3 of 3 keys matched" in report
    assert {found.rpartition(".lora_")[0] for found in load_file(models / "loras" / name)} == {
        f"transformer.transformer_blocks.0.attn.to_{part}" for part in "qkv"}
