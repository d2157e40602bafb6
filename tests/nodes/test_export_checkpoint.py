"""Export Checkpoint with a LoRA merged into the weights."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.checkpoints import write_sd1
from kit.core_lora import LAYER, core_lora
from kit.pack import pack_module
from safetensors.torch import load_file

pytestmark = pytest.mark.host


def test_the_report_names_what_was_left_out_of_a_merge(nodes: dict[str, Any], pack: ModuleType, models: Path) -> None:
    checkpoint = write_sd1(models / "checkpoints" / "tiny.safetensors", shape="tiny", dtype="float32")
    model = pack_module(pack, "atelier.models.open").open_model(checkpoint)
    state = {**core_lora(), "diffusion_model.elsewhere.diff_b": torch.randn(4)}
    execute = nodes["AtelierExportCheckpoint"].execute
    name, report = execute(model, "merged", "keep", 0.5, state).result
    assert "LoRA merged at 0.5: 5 of 6 keys matched" in report and "diffusion_model.elsewhere.diff_b" in report
    key = f"model.diffusion_model.{LAYER}.weight"
    before, after = load_file(checkpoint), load_file(models / "checkpoints" / name)
    delta = state[f"diffusion_model.{LAYER}.lora_up.weight"] @ state[f"diffusion_model.{LAYER}.lora_down.weight"] / 2
    torch.testing.assert_close(after[key], before[key] + 0.5 * delta)
    biases = {f"model.diffusion_model.out.{n}.bias": state[f"diffusion_model.out.{n}.diff_b"] for n in (0, 2)}
    for bias, change in biases.items():
        torch.testing.assert_close(after[bias], before[bias] + 0.5 * change)
    assert {k for k in before if k in after and not torch.equal(before[k], after[k])} == {key, *biases}


def test_a_lora_of_another_model_raises_an_error(nodes: dict[str, Any], pack: ModuleType, models: Path
                                                               ) -> None:
    checkpoint = write_sd1(models / "checkpoints" / "tiny.safetensors", shape="tiny")
    model = pack_module(pack, "atelier.models.open").open_model(checkpoint)
    flux = {f"diffusion_model.double_blocks.0.img_attn.proj.lora_{half}.weight": torch.randn(4, 4)
            for half in ("up", "down")}
    error = pack_module(pack, "atelier.errors").AtelierError
    with pytest.raises(error, match="1 of the LoRA's 1 layers do not fit"):
        nodes["AtelierExportCheckpoint"].execute(model, "merged", "keep", 1.0, flux)
    with pytest.raises(error, match="do not fit tiny"):
        nodes["AtelierExportCheckpoint"].execute(model, "merged", "keep", 1.0, core_lora(width=64))
    assert [path.name for path in (models / "checkpoints").iterdir()] == ["tiny.safetensors"]


def test_single_files_may_be_float8_and_folders_may_not(nodes: dict[str, Any], pack: ModuleType, models: Path) -> None:
    offered = {node: next(socket.options for socket in nodes[node].define_schema().inputs if socket.id == "precision")
               for node in ("AtelierExportCheckpoint", "AtelierConvertCheckpoint")}
    assert offered["AtelierConvertCheckpoint"] == ["keep", "fp16", "bf16", "fp32"]
    assert offered["AtelierExportCheckpoint"] == [*offered["AtelierConvertCheckpoint"], "fp8"]
    checkpoint = write_sd1(models / "checkpoints" / "tiny.safetensors", shape="tiny")
    model = pack_module(pack, "atelier.models.open").open_model(checkpoint)
    name, report = nodes["AtelierExportCheckpoint"].execute(model, "small", "fp8", 1.0).result
    assert "in float8_e4m3fn" in report
    written = load_file(models / "checkpoints" / name)
    assert written[f"model.diffusion_model.{LAYER}.weight"].dtype == torch.float8_e4m3fn
