"""OFTv2 of OneTrainer's files changes weights as what it was trained with: PEFT's rotation by the same series."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atelier.errors import AtelierError
from atelier.lora.convert import convert_lora
from atelier.lora.file import load_lora, parse_lora

KEY = "lora_unet_mid_block_resnets_0_conv1"


def rotation(vectors: Tensor) -> Tensor:
    """PEFT's rotation of these numbers."""
    size = {1: 2, 3: 3, 6: 4}[vectors.shape[1]]
    layer: Any = peft.inject_adapter_in_model(peft.OFTConfig(
        oft_block_size=size, target_modules=["0"]), nn.Sequential(nn.Linear(size * len(vectors), 5)))
    module = layer[0].oft_R["default"]
    return module._cayley_batch(vectors, size, True, 5)


def state(vectors: Tensor, scaled: bool = False) -> dict[str, Tensor]:
    return {f"{KEY}.oft_R.weight": vectors, **({f"{KEY}.oft_R.scaled_oft": torch.tensor(True)} if scaled else {})}


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("blocks", [3, 1], ids=["own", "shared"])
def test_a_linear_layer_is_turned_as_by_peft(blocks: int, scaled: bool) -> None:
    vectors = torch.randn(blocks, 6) * 0.2
    (module,) = parse_lora(state(vectors, scaled), "a").weights.values()
    model: Any = peft.inject_adapter_in_model(peft.OFTConfig(
        oft_block_size=4, block_share=blocks == 1, target_modules=["0"]), nn.Sequential(nn.Linear(12, 5)))
    with torch.no_grad():
        model[0].oft_R["default"].weight.copy_(vectors / (2 * math.sqrt(3) if scaled else 1))
    sample, base = torch.randn(7, 12), model[0].base_layer
    changed = module.applied(base.weight)
    assert (changed - base.weight).abs().max() > 1e-2
    torch.testing.assert_close(nn.functional.linear(sample, changed, base.bias), model(sample), rtol=1e-4, atol=1e-5)
    assert module.fits((5, 12)) and not module.fits((5, 10))
    torch.testing.assert_close(module.applied(base.weight, 0.5), (changed + base.weight) / 2)


def test_a_convolution_is_turned_the_other_way() -> None:
    """OneTrainer turns its weights, [out, in · k · k], and not what goes in."""
    vectors = torch.randn(9, 6) * 0.2
    (module,) = parse_lora(state(vectors), "a").weights.values()
    weight = torch.randn(5, 4, 3, 3)
    expected = (weight.flatten(1) @ torch.block_diag(*rotation(vectors).detach())).reshape(weight.shape)
    torch.testing.assert_close(module.applied(weight), expected)
    assert module.fits((5, 4, 3, 3)) and not module.fits((5, 5, 3, 3))


def test_it_is_written_as_it_was_read_and_is_no_lora(tmp_path: Path) -> None:
    save_file(state(torch.randn(9, 6), scaled=True), tmp_path / "a.safetensors")
    report = convert_lora(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert "1 layers are IA3 or OFTv2" in report.text() and "OFTv2 1" in report.text()
    before, after = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    with pytest.raises(AtelierError, match=r"1 of its 1 layers are of kinds \(OFTv2 1\)"):
        convert_lora(tmp_path / "a.safetensors", tmp_path / "c.safetensors", "diffusers")


@pytest.mark.parametrize("shape", [(2, 5), (2, 0), (3,)], ids=str)
def test_numbers_of_no_square_block_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    save_file(state(torch.ones(shape)), tmp_path / "a.safetensors")
    with pytest.raises(AtelierError, match="do not fit together"):
        load_lora(tmp_path / "a.safetensors")
