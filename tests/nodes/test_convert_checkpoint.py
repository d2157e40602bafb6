"""Convert Checkpoint: where folders go, and how they are found again."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.checkpoints import write_sd1, write_sdxl
from kit.pack import pack_module
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.host


@pytest.mark.parametrize("name", ["a/b/c.safetensors", "a\\b\\c.safetensors"])
def test_a_checkpoint_in_nested_folders_is_listed_as_a_diffusers_model(name: str, nodes: dict[str, Any],
                                                                       models: Path) -> None:
    """Also with a name from a graph saved on Windows."""
    write_sd1(models / "checkpoints" / "a" / "b" / "c.safetensors", "tiny")
    model, _ = nodes["AtelierConvertCheckpoint"].execute(name, "keep", "auto").result
    assert model.path == models / "diffusers" / "a" / "b" / "c"
    listed = nodes["AtelierOpenModel"].GET_SCHEMA().inputs[0].options
    assert listed[-1] == "diffusers: a/b/c"
    assert nodes["AtelierOpenModel"].execute(listed[-1], "auto").result[0].path == model.path


def test_the_host_reads_both_layouts_of_the_projection(pack: ModuleType, tmp_path: Path) -> None:
    from comfy.utils import clip_text_transformers_convert

    prefix = "conditioner.embedders.1.model."
    source = write_sdxl(tmp_path / "m.safetensors", "tiny")
    state = load_file(source)
    linear = state.pop(f"{prefix}text_projection").t().contiguous()
    save_file(state | {f"{prefix}text_projection.weight": linear}, source)
    pack_module(pack, "atelier.convert.single_file").to_checkpoint(source, tmp_path / "out.safetensors")
    for path in (source, tmp_path / "out.safetensors"):
        state = clip_text_transformers_convert(load_file(path), prefix, "clip.")
        assert torch.equal(state["clip.text_projection.weight"], linear)
