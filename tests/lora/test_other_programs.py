"""LoRA files as other programs write them: their names, types, kinds and what they bring along."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier.errors import AtelierError
from atelier.lora.convert import convert_lora
from atelier.lora.file import load_lora, read_lora

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
CHECKPOINTS = "input_blocks.4.1.transformer_blocks.0.attn1"
TEXT = "text_model.encoder.layers.3.self_attn"


def pair(stem: str, down: str = "lora_down.weight", up: str = "lora_up.weight", width: int = 8) -> dict[str, Tensor]:
    return {f"{stem}.{down}": torch.randn(2, width), f"{stem}.{up}": torch.randn(width, 2)}


NAMES: dict[str, tuple[dict[str, Tensor], set[str]]] = {
    "no prefix": (pair(f"{ATTENTION}.to_q", "lora_A.weight", "lora_B.weight"), {f"unet.{ATTENTION}.to_q"}),
    "the prefix twice": (pair(f"unet.unet.{ATTENTION}.to_q", "lora_A.weight", "lora_B.weight"),
                         {f"unet.{ATTENTION}.to_q"}),
    "PEFT's prefix behind the component": (
        pair(f"unet.base_model.model.{ATTENTION}.to_q", "lora_A.weight", "lora_B.weight")
        | pair(f"text_encoder.base_model.model.{TEXT}.q_proj", "lora_A.weight", "lora_B.weight"),
        {f"unet.{ATTENTION}.to_q", f"text_encoder.{TEXT}.q_proj"}),
    "the adapter's name": (pair(f"base_model.model.{ATTENTION}.to_q", "lora_A.default.weight", "lora_B.default.weight"),
                           {f"unet.{ATTENTION}.to_q"}),
    "OMI": (pair(f"unet.{CHECKPOINTS}.to_q") | pair(f"clip_l.{TEXT}.q_proj") | pair(f"clip_g.{TEXT}.q_proj"),
            {f"unet.{ATTENTION}.to_q", f"text_encoder.{TEXT}.q_proj", f"text_encoder_2.{TEXT}.q_proj"}),
    "diffusers' old names of text encoders": (
        pair(f"text_encoder.{TEXT}", "to_q_lora.down.weight", "to_q_lora.up.weight")
        | pair(f"text_encoder.{TEXT}.to_out", "lora_linear_layer.down.weight", "lora_linear_layer.up.weight")
        | pair(f"text_encoder.{TEXT}.processor", "to_v_lora.down.weight", "to_v_lora.up.weight"),
        {f"text_encoder.{TEXT}.{part}_proj" for part in ("q", "out", "v")}),
    "SimpleTuner's LyCORIS": (pair(f"lycoris_{ATTENTION.replace('.', '_')}_to_q"), {f"unet.{ATTENTION}.to_q"}),
}


@pytest.mark.parametrize("case", NAMES)
def test_every_naming_leads_to_the_layer(case: str, tmp_path: Path) -> None:
    state, layers = NAMES[case]
    save_file(state, tmp_path / "a.safetensors")
    read = load_lora(tmp_path / "a.safetensors")
    assert read.keys() == layers
    assert {tuple(module.up.flatten().tolist()) for module in read.values()} == {
        tuple(tensor.flatten().tolist()) for key, tensor in state.items() if tensor.shape[1] == 2}


KOHYA = f"lora_unet_{ATTENTION.replace('.', '_')}"


@pytest.mark.parametrize("ending", [".pt", ".bin"])
def test_a_pickle_that_holds_tensors_alone_is_read(ending: str, tmp_path: Path) -> None:
    state = pair(f"{KOHYA}_to_q")
    torch.save(state, tmp_path / f"a{ending}")
    convert_lora(tmp_path / f"a{ending}", tmp_path / "b.safetensors")
    written = load_file(tmp_path / "b.safetensors")
    assert all(torch.equal(written[key], tensor) for key, tensor in state.items())


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('ran')",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({**pair(f"{KOHYA}_to_q"), "x": Trap()}, tmp_path / "a.pt")
    with pytest.raises(AtelierError, match="could run code"):
        load_lora(tmp_path / "a.pt")


def test_an_old_peft_folder_is_read(tmp_path: Path) -> None:
    torch.save(pair(f"base_model.model.{ATTENTION}.to_q", "lora_A.weight", "lora_B.weight"),
               tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 4}), encoding="utf-8")
    (module,) = load_lora(tmp_path).values()
    assert module.alpha == 4


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_is_read_without_loss(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {key: tensor.to(dtype) for key, tensor in pair(f"{KOHYA}_to_q").items()}
    save_file(state, tmp_path / "a.safetensors")
    report = convert_lora(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert report.dtype == "float16"
    written = load_file(tmp_path / "b.safetensors")
    assert all(torch.equal(written[key].float(), tensor.float()) for key, tensor in state.items())


def test_a_type_that_is_no_weight_is_named(tmp_path: Path) -> None:
    save_file({key: tensor.to(torch.int8) for key, tensor in pair(f"{KOHYA}_to_q").items()}, tmp_path / "a.safetensors")
    with pytest.raises(AtelierError, match=rf"{KOHYA}_to_q\.lora_\w+\.weight is of type int8"):
        load_lora(tmp_path / "a.safetensors")


# --- LyCORIS' DoRA ----------------------------------------------------------------------------------------------------

def by_input(weight: Tensor, up: Tensor, down: Tensor, magnitude: Tensor) -> Tensor:
    """W' one input channel after the other, in double precision: m · column / ‖column‖, as LyCORIS has it."""
    tuned = weight.double() + torch.einsum("or,ri...->oi...", up.flatten(1).double(), down.double()) / 2
    columns = [magnitude.flatten()[i].double() * tuned[:, i] / tuned[:, i].norm() for i in range(weight.shape[1])]
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize(("layer", "shape"), [("to_q", (8, 8)), ("to_k", (8, 6)), ("conv", (8, 8, 3, 3)),
                                              ("conv", (4, 8, 3, 3))])
def test_dora_by_input_channels_is_applied_as_lycoris_does(layer: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    kernel = shape[2:]
    stem = "lora_unet_down_blocks_0_resnets_0_conv1" if kernel else f"{KOHYA}_{layer}"
    magnitude = torch.rand(1, shape[1], *[1] * len(kernel)) + 0.5
    state = {f"{stem}.lora_down.weight": torch.randn(2, *shape[1:]),
             f"{stem}.lora_up.weight": torch.randn(shape[0], 2, *[1] * len(kernel)),
             f"{stem}.alpha": torch.tensor(1.0), f"{stem}.dora_scale": magnitude}
    save_file(state, tmp_path / "a.safetensors")
    (module,) = load_lora(tmp_path / "a.safetensors").values()
    weight = torch.randn(shape)
    expected = by_input(weight, state[f"{stem}.lora_up.weight"], state[f"{stem}.lora_down.weight"], magnitude)
    torch.testing.assert_close(module.applied(weight).double(), expected, rtol=1e-5, atol=1e-5)
    convert_lora(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "kohya")
    assert torch.equal(load_file(tmp_path / "b.safetensors")[f"{stem}.dora_scale"], magnitude)
    for format in ("diffusers", "peft"):
        with pytest.raises(AtelierError, match=f"the {format} format has no place for"):
            convert_lora(tmp_path / "a.safetensors", tmp_path / ("c.safetensors" if format == "diffusers" else "c"),
                         format)


def test_dora_by_output_channels_stays_so_on_square_layers(tmp_path: Path) -> None:
    save_file({**pair(f"{KOHYA}_to_q"), f"{KOHYA}_to_q.dora_scale": torch.rand(8, 1)}, tmp_path / "a.safetensors")
    (module,) = load_lora(tmp_path / "a.safetensors").values()
    assert not module.by_input
    norms = module.applied(torch.randn(8, 8)).norm(dim=1)
    assert module.magnitude is not None
    torch.testing.assert_close(norms, module.magnitude.flatten())


# --- what changes nothing, what is of another kind, what comes along -------------------------------------------------

def test_a_layer_of_rank_0_is_passed_over(tmp_path: Path) -> None:
    empty = {f"{KOHYA}_to_k.lora_down.weight": torch.zeros(0, 8), f"{KOHYA}_to_k.lora_up.weight": torch.zeros(8, 0),
             f"{KOHYA}_to_k.alpha": torch.tensor(0.0)}
    save_file({**pair(f"{KOHYA}_to_q"), **empty}, tmp_path / "a.safetensors")
    assert load_lora(tmp_path / "a.safetensors").keys() == {f"unet.{ATTENTION}.to_q"}
    save_file(empty, tmp_path / "b.safetensors")
    with pytest.raises(AtelierError, match="rank 0 in every layer: it would change nothing"):
        load_lora(tmp_path / "b.safetensors")


def test_alpha_0_everywhere_is_said(tmp_path: Path) -> None:
    state = {**pair(f"{KOHYA}_to_q"), f"{KOHYA}_to_q.alpha": torch.tensor(0.0)}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(AtelierError, match="alpha 0 in each of its 1 layers: it would change nothing"):
        load_lora(tmp_path / "a.safetensors")
    save_file({**state, **pair(f"{KOHYA}_to_k")}, tmp_path / "b.safetensors")
    assert len(load_lora(tmp_path / "b.safetensors")) == 2


@pytest.mark.parametrize(("key", "kind"), [
    (f"{KOHYA}_to_q.hada_w1_a", "LoHa"), (f"{KOHYA}_to_q.lokr_w1", "LoKr"), (f"{KOHYA}_to_q.oft_diag", "OFT"),
    (f"{KOHYA}_to_q.a1.weight", "GLoRA"), ("lora_unet_elsewhere.diff", "whole differences"),
    ("emb_params", "embedding"),
    (f"{KOHYA}_to_q.on_input", "IA3"), ("lora_unet_double_blocks_0_img_attn_proj.lora_up.weight", "Flux")])
def test_another_kind_is_named(key: str, kind: str, tmp_path: Path) -> None:
    save_file({key: torch.ones(2, 2)}, tmp_path / "a.safetensors")
    with pytest.raises(AtelierError, match=f"none of its 1 keys.*it looks like .*{kind}"):
        load_lora(tmp_path / "a.safetensors")
    save_file({key: torch.ones(2, 2), **pair(f"{KOHYA}_to_k")}, tmp_path / "b.safetensors")
    with pytest.raises(AtelierError, match=f"1 of 3 keys.*{kind}"):
        load_lora(tmp_path / "b.safetensors")
    assert kind in read_lora(tmp_path / "b.safetensors").left_out()


def test_of_many_left_out_keys_the_first_five_are_named(tmp_path: Path) -> None:
    save_file({**pair(f"{KOHYA}_to_k"), **{f"key_{i}": torch.ones(2, 2) for i in range(7)}}, tmp_path / "a.safetensors")
    assert read_lora(tmp_path / "a.safetensors").left_out() == (
        "Left out: key_0, key_1, key_2, key_3, key_4 and 2 more")


def test_bundled_embeddings_are_left_aside_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file({**pair(f"{KOHYA}_to_q"), "bundle_emb.fox.string_to_param.*": torch.ones(1, 768),
               "bundle_emb.fox.clip_l": torch.ones(1, 768)}, tmp_path / "a.safetensors")
    with caplog.at_level(logging.WARNING, "atelier"):
        assert len(load_lora(tmp_path / "a.safetensors")) == 1
    assert "brings embeddings along, which are not used" in caplog.text
    assert "Left out (bundled embeddings): bundle_emb.fox" in convert_lora(
        tmp_path / "a.safetensors", tmp_path / "b.safetensors").text()
