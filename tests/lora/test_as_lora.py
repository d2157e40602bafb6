"""Adapters of other kinds as LoRA: the nearest of a rank, with what is lost told, and never a part without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from kit.training import tiny_unet
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier.errors import AtelierError
from atelier.lora.combine import combine_loras
from atelier.lora.convert import convert_lora
from atelier.lora.file import load_lora
from atelier.lora.inspect import inspect_lora, is_lora
from atelier.lora.resize import resize_lora
from atelier.lora.weights import LoraModule

ATTENTION = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
CONVOLUTION = "lora_unet_mid_block_resnets_0_conv1"
NORM = "lora_unet_conv_norm_out"


def state() -> dict[str, Tensor]:
    """A LoKr of full rank, wide as one with a kernel of 3 × 3, a LoHa without the shape of its kernel, and a norm."""
    stream = torch.Generator().manual_seed(2)
    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=stream)
    return {f"{ATTENTION}.lokr_w1": random(6, 6), f"{ATTENTION}.lokr_w2": random(3, 3),
            f"{CONVOLUTION}.hada_w1_a": random(8, 2), f"{CONVOLUTION}.hada_w1_b": random(2, 54),
            f"{CONVOLUTION}.hada_w2_a": random(8, 2), f"{CONVOLUTION}.hada_w2_b": random(2, 54)}


def changes(path: Path) -> dict[str, np.ndarray]:
    return {name: module.delta().flatten(1).double().numpy() for name, module in load_lora(path).items()}


@pytest.mark.parametrize("format", ["diffusers", "peft"])
@pytest.mark.parametrize("rank", [0, 3])
def test_formats_of_lora_alone_hold_the_nearest_lora(format: str, rank: int, tmp_path: Path) -> None:
    save_file(state(), tmp_path / "a.safetensors")
    to = tmp_path / ("b" if format == "peft" else "b.safetensors")
    report = convert_lora(tmp_path / "a.safetensors", to, format, rank=rank)
    before, after, whole, lost = changes(tmp_path / "a.safetensors"), changes(to), 0.0, 0.0
    assert before.keys() == after.keys()
    for name, change in before.items():
        values = np.linalg.svd(change, compute_uv=False)
        whole, missing = whole + (values ** 2).sum(), (values[rank or None:] ** 2).sum() if rank else 0.0
        lost += missing
        assert np.linalg.norm(change - after[name]) == pytest.approx(missing ** 0.5, rel=1e-4, abs=1e-4)
    assert {len(module.down.shape) for module in load_lora(to).values() if isinstance(module, LoraModule)} == {2, 4}
    said = f"2 layers (LoKr 1, LoHa 1) became LoRA of rank {rank or 18} at most: {(lost / whole) ** 0.5:.2%} of their"
    assert said in report.text() and "kinds: LoKr 1, LoHa 1" in report.text()


SD1_TEXT = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
"""The layer by whose width Stable Diffusion 1 is known, where `proj_in` and `proj_out` are convolutions."""


@pytest.mark.parametrize(("layer", "second", "text_width", "shape"), [
    ("resnets_0_conv1", (2, 3, 3, 3), 64, (8, 12, 3, 3)), ("resnets_0_conv1", (2, 27), 64, (8, 12, 3, 3)),
    ("resnets_0_conv_shortcut", (2, 9), 64, (8, 36, 1, 1)), ("attentions_0_proj_in", (2, 9), 768, (8, 36, 1, 1)),
    ("attentions_0_proj_out", (2, 9), 768, (8, 36, 1, 1)), ("attentions_0_proj_in", (2, 9), 1024, (8, 36)),
    ("attentions_0_transformer_blocks_0_attn1_to_q", (2, 9), 768, (8, 36))])
def test_a_lora_has_the_axes_of_its_layer(layer: str, second: tuple[int, ...], text_width: int, shape: tuple[int, ...],
                                          tmp_path: Path) -> None:
    """Programs put a LoRA into a layer as it is: of a convolution it must have four axes."""
    torch.manual_seed(0)
    save_file({f"lora_unet_mid_block_{layer}.lokr_w1": torch.randn(4, 4),
               f"lora_unet_mid_block_{layer}.lokr_w2": torch.randn(second),
               f"{SD1_TEXT}.lora_down.weight": torch.randn(2, text_width),
               f"{SD1_TEXT}.lora_up.weight": torch.randn(4, 2)}, tmp_path / "a.safetensors")
    convert_lora(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "diffusers", rank=0)
    before, after = load_lora(tmp_path / "a.safetensors"), load_lora(tmp_path / "b.safetensors")
    assert before.keys() == after.keys()
    (name,) = (name for name in after if "attn2" not in name)
    assert after[name].delta().shape == shape
    torch.testing.assert_close(after[name].delta(), before[name].delta().reshape(shape), rtol=1e-4, atol=1e-4)


def test_what_no_lora_can_do_is_refused_with_the_number_of_layers(tmp_path: Path) -> None:
    save_file({**state(), f"{NORM}.w_norm": torch.ones(8)}, tmp_path / "norm.safetensors")
    save_file({**state(), f"{NORM}.w_norm": torch.ones(8), CONVOLUTION.replace("conv1", "conv2") + ".oft_blocks":
               torch.randn(2, 4, 4)}, tmp_path / "oft.safetensors")
    for name, message in (("norm", "1 of its 3 layers are changes of biases and norms"),
                          ("oft", r"1 of its 4 layers are of kinds \(OFT 1\)")):
        with pytest.raises(AtelierError, match=message):
            convert_lora(tmp_path / f"{name}.safetensors", tmp_path / "out.safetensors", "diffusers")
        kept = convert_lora(tmp_path / f"{name}.safetensors", tmp_path / f"{name}-kohya.safetensors")
        assert load_file(kept.destination).keys() == load_file(tmp_path / f"{name}.safetensors").keys()
    with pytest.raises(AtelierError, match="1 of its 4 layers"):
        resize_lora(tmp_path / "oft.safetensors", tmp_path / "out.safetensors", rank=2)
    assert not (tmp_path / "out.safetensors").exists()


def test_tools_take_every_kind(tmp_path: Path) -> None:
    save_file({**state(), f"{NORM}.w_norm": torch.full((8,), 2.0)}, tmp_path / "a.safetensors")
    small = resize_lora(tmp_path / "a.safetensors", tmp_path / "small.safetensors", rank=2)
    assert "made LoRA of: LoKr 1, LoHa 1" in small.text() and small.layers == 3
    whole = combine_loras([(tmp_path / "a.safetensors", 1.0), (tmp_path / "a.safetensors", -0.5)],
                          tmp_path / "merged.safetensors")
    assert "became LoRA" in whole.text()
    before, merged = load_lora(tmp_path / "a.safetensors"), load_lora(tmp_path / "merged.safetensors")
    for name, module in before.items():
        torch.testing.assert_close(merged[name].delta().flatten(), 0.5 * module.delta().flatten(), rtol=1e-4, atol=1e-4)
    assert torch.equal(load_lora(tmp_path / "small.safetensors")["unet.conv_norm_out"].delta(), torch.full((8,), 2.0))
    assert is_lora(tmp_path / "a.safetensors")
    found = inspect_lora(tmp_path / "a.safetensors")
    assert found.kinds == "whole difference 1, LoKr 1, LoHa 1" and found.kinds in found.text()
    norms = {layer.name: layer.norm for layer in found.layers}
    assert norms["unet.conv_norm_out"] == pytest.approx(32 ** 0.5)


@pytest.mark.parametrize("make", [
    lambda **more: peft.LoHaConfig(r=3, alpha=2, **more),
    lambda **more: peft.LoKrConfig(r=2, alpha=3, rank_pattern={"to_k": 40}, alpha_pattern={"to_k": 5}, **more)],
    ids=["LoHa", "LoKr"])
def test_pefts_own_folder_of_another_kind_is_read_with_its_strength(make: Any, tmp_path: Path) -> None:
    unet: Any = peft.get_peft_model(tiny_unet(), make(target_modules=["to_q", "to_k"]))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if ".hada_" in name or ".lokr_" in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.5)
    unet.save_pretrained(str(tmp_path / "a"))
    ours = load_lora(tmp_path / "a")
    layers = {path.removeprefix("base_model.model."): layer for path, layer in unet.named_modules()
              if hasattr(layer, "get_delta_weight")}
    assert ours.keys() == {f"unet.{path}" for path in layers}
    for path, layer in layers.items():
        torch.testing.assert_close(ours[f"unet.{path}"].delta(), layer.get_delta_weight("default").detach())
