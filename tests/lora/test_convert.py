"""LoRA files in every format: read, converted and read back by the programs they are for, with equal ΔW."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from kit.loras import layers, random_lora, tiny_models
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atelier.errors import AtelierError
from atelier.lora.convert import convert_lora
from atelier.lora.file import load_lora, save_lora
from atelier.lora.formats import kohya_state
from atelier.lora.weights import LoraModule, others, plain

SUFFIX = {"kohya": ".safetensors", "diffusers": ".safetensors", "peft": ""}
DIRECTIONS = [(a, b) for a in SUFFIX for b in SUFFIX if a != b]
SETS = {"attention": r"unet\..*attn", "everything in the UNet": r"unet\..*(attn|\.ff\.|proj_|conv|time_emb|sampler)",
        "text encoders": r"text_encoder.*(self_attn|mlp)", "UNet and text encoders": r".*(attn|mlp)"}


def chosen(family: str, pattern: str) -> dict[str, nn.Module]:
    found = {name: layer for part, model in tiny_models(family).items() for name, layer in layers(part, model).items()
             if re.match(pattern, name)}
    assert found
    return found


def deltas(weights: Mapping[str, LoraModule]) -> dict[str, Tensor]:
    """(alpha / r) · B · A by torch's own convolution rule, layer by layer, in double precision."""
    made = {}
    for name, m in weights.items():
        pattern = "or,ri->oi" if m.down.dim() == 2 else "orxy,rikl->oikl"
        made[name] = torch.einsum(pattern, m.up.double(), m.down.double()) * (m.alpha / m.down.shape[0])
    return made


def assert_equal_deltas(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, delta in theirs.items():
        assert delta.abs().max() > 0, name
        assert (ours[name] - delta).norm() <= 1e-6 * delta.norm(), name


def adapted(component: str, model: nn.Module) -> dict[str, Tensor]:
    """ΔW of every layer of a model that carries a PEFT adapter, as PEFT computes it."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, LoraLayer):
            assert len(module.lora_A) == 1
            path = path.removeprefix("base_model.model.")
            path = f"text_model.{path}" if path.startswith("encoder.") else path
            found[f"{component}.{path}"] = module.get_delta_weight(next(iter(module.lora_A))).double()
    return found


def pipeline(family: str) -> Any:
    parts: dict[str, Any] = {**tiny_models(family), "scheduler": DDIMScheduler(), "tokenizer": None,
                             "vae": AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)}
    if family == "sdxl":
        return StableDiffusionXLPipeline(**parts, tokenizer_2=None)
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def mixed(family: str, pattern: str) -> dict[str, LoraModule]:
    """Ranks and alphas that differ from layer to layer, none of them giving scale 1."""
    of = chosen(family, pattern)
    names = sorted(of)
    made = random_lora({name: of[name] for name in names[::2]}, rank=4, alpha=2.0)
    return made | random_lora({name: of[name] for name in names[1::2]}, rank=3, alpha=7.0, seed=1)


@pytest.mark.parametrize("layer_set", SETS)
@pytest.mark.parametrize(("first", "second"), DIRECTIONS)
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_every_direction_keeps_every_delta(family: str, first: str, second: str, layer_set: str, tmp_path: Path
                                           ) -> None:
    weights = mixed(family, SETS[layer_set])
    source = save_lora(tmp_path / f"a{SUFFIX[first]}", weights, format=first)
    report = convert_lora(source, tmp_path / f"b{SUFFIX[second]}", second)
    assert_equal_deltas(deltas(load_lora(report.destination)), deltas(weights))
    assert report.matched == report.total >= 2 * len(weights)
    assert f"{report.total} of {report.total} keys matched" in report.text()
    assert sum(report.layers.values()) == len(weights)


@pytest.mark.parametrize("layer_set", ["everything in the UNet", "UNet and text encoders"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_diffusers_reads_what_we_write(family: str, layer_set: str, tmp_path: Path) -> None:
    weights = mixed(family, SETS[layer_set])
    assert_equal_deltas(read_by_diffusers(family, save_lora(tmp_path / "a.safetensors", weights, format="diffusers")),
                        deltas(weights))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_diffusers_reads_our_kohya_format(family: str, tmp_path: Path) -> None:
    # One alpha for all: diffusers applies kohya's alphas to attention layers only where they are all the same.
    weights = random_lora(chosen(family, r"unet\..*(attn|\.ff\.)|text_encoder.*(self_attn|mlp)"), rank=4, alpha=2.0)
    assert_equal_deltas(read_by_diffusers(family, save_lora(tmp_path / "a.safetensors", weights)), deltas(weights))


def read_by_diffusers(family: str, path: Path) -> dict[str, Tensor]:
    pipe = pipeline(family)
    pipe.load_lora_weights(str(path.parent), weight_name=path.name)
    parts = [part for part in ("unet", "text_encoder", "text_encoder_2") if getattr(pipe, part, None) is not None]
    return {name: delta for part in parts for name, delta in adapted(part, getattr(pipe, part)).items()}


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_peft_reads_what_we_write(family: str, dora: bool, tmp_path: Path) -> None:
    weights = random_lora(chosen(family, r"unet.*(attn|resnets|proj_)|text_encoder.*self_attn"), dora=dora)
    folder = save_lora(tmp_path / "a", weights, format="peft")
    read, models = {}, tiny_models(family)
    for part, model in models.items():
        loaded = PeftModel.from_pretrained(model, str(folder / part))
        read |= adapted(part, loaded)
        for path, module in loaded.named_modules():
            if dora and isinstance(module, LoraLayer):
                name = f"{part}.{path.removeprefix('base_model.model.')}"
                own = weights.get(name) or weights[name.replace(".encoder.", ".text_model.encoder.", 1)]
                assert own.magnitude is not None
                magnitude = module.lora_magnitude_vector["default"].weight
                assert torch.equal(magnitude.flatten(), own.magnitude)
    assert_equal_deltas(read, deltas(weights))


def test_a_folder_of_the_unet_alone_is_one_adapter(tmp_path: Path) -> None:
    weights = mixed("sd1", SETS["everything in the UNet"])
    folder = save_lora(tmp_path / "a", weights, format="peft")
    assert sorted(p.name for p in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    loaded = PeftModel.from_pretrained(tiny_models("sd1")["unet"], str(folder))
    assert_equal_deltas(adapted("unet", loaded), deltas(weights))


# --- files of other programs ------------------------------------------------------------------------------------------

def randomised(model: nn.Module) -> None:
    stream = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05, generator=stream)


CONFIGS: dict[str, dict[str, Any]] = {
    "alpha twice the rank": {"lora_alpha": 8}, "rank-stabilised": {"lora_alpha": 3, "use_rslora": True},
    "patterns": {"lora_alpha": 8, "alpha_pattern": {"to_q": 1, r"attn2\.to_v": 32}, "rank_pattern": {"to_k": 2}}}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_pefts_own_folder_is_read_with_its_strength(component: str, kind: str, tmp_path: Path) -> None:
    targets = ["to_q", "to_k", "to_v", "conv1"] if component == "unet" else ["q_proj", "v_proj"]
    model = get_peft_model(tiny_models("sd1")[component], LoraConfig(r=4, target_modules=targets, **CONFIGS[kind]))
    randomised(model)
    model.save_pretrained(str(tmp_path / "peft"))
    expected = adapted(component, model)
    assert_equal_deltas(deltas(load_lora(tmp_path / "peft")), expected)
    report = convert_lora(tmp_path / "peft", tmp_path / "kohya.safetensors", "kohya")
    assert_equal_deltas(deltas(load_lora(report.destination)), expected)
    assert all(key.startswith("lora_unet_" if component == "unet" else "lora_te_")
               for key in load_file(report.destination))


@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_diffusers_own_file_is_read(family: str, stated: bool, tmp_path: Path) -> None:
    """With the configurations in its header the scale is alpha / r; without them nobody can know it, and it is 1."""
    models, states, configs = tiny_models(family), {}, {}
    for part, model in models.items():
        targets = ["to_q", "to_out.0", "conv1"] if part == "unet" else ["q_proj", "out_proj"]
        config = LoraConfig(r=4, lora_alpha=8 if stated else 4, target_modules=targets)
        inject_adapter_in_model(config, model)
        randomised(model)
        states[f"{part}_lora_layers"] = get_peft_model_state_dict(model, state_dict=lora_state(model))
        configs[f"{part}_lora_adapter_metadata"] = config.to_dict()
    writer = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    writer.save_lora_weights(str(tmp_path), **states, **(configs if stated else {}))
    path = tmp_path / "pytorch_lora_weights.safetensors"
    expected = {name: delta for part, model in models.items() for name, delta in adapted(part, model).items()}
    assert_equal_deltas(deltas(load_lora(path)), expected)
    report = convert_lora(path, tmp_path / "again.safetensors", "diffusers")
    assert_equal_deltas(deltas(load_lora(report.destination)), expected)


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    return {name.replace(".default", ""): value for name, value in model.state_dict().items() if "lora_" in name}


def test_kohyas_file_with_checkpoints_names_means_what_diffusers_reads_in_it(tmp_path: Path) -> None:
    """As SDXL LoRAs are shared: LDM names for the UNet, both text encoders beside it."""
    blocks = [f"{place}_transformer_blocks_{n}" for place, depth in (
        ("input_blocks_4_1", 2), ("input_blocks_8_1", 10), ("middle_block_1", 10), ("output_blocks_0_1", 10),
        ("output_blocks_5_1", 2)) for n in (0, depth - 1)]
    stems = [f"lora_unet_{block}_{layer}" for block in blocks
             for layer in ("attn1_to_q", "attn2_to_k", "attn2_to_out_0", "ff_net_0_proj", "ff_net_2")]
    stems += ["lora_te1_text_model_encoder_layers_3_self_attn_q_proj", "lora_te2_text_model_encoder_layers_31_mlp_fc1"]
    state: dict[str, Tensor] = {}
    for number, stem in enumerate(stems):
        state[f"{stem}.lora_down.weight"] = torch.randn(2, 6)
        state[f"{stem}.lora_up.weight"] = torch.randn(5, 2)
        state[f"{stem}.alpha"] = torch.tensor(1.0 + number % 3)
    save_file(state, tmp_path / "ldm.safetensors")
    unet_config = type("Config", (), {"layers_per_block": 2})()
    theirs, _ = StableDiffusionXLPipeline.lora_state_dict(dict(state), unet_config=unet_config)
    named = {tuple(tensor.flatten().tolist()): plain_name(key) for key, tensor in theirs.items() if ".down." in key}
    expected = {}
    for stem in stems:
        down, up = state[f"{stem}.lora_down.weight"], state[f"{stem}.lora_up.weight"]
        delta = up.double() @ down.double() * (state[f"{stem}.alpha"] / 2)
        expected[named[tuple(down.flatten().tolist())]] = delta
    read = load_lora(convert_lora(tmp_path / "ldm.safetensors", tmp_path / "out.safetensors", "diffusers").destination)
    assert_equal_deltas(deltas(read), expected)


def plain_name(key: str) -> str:
    """A key as diffusers' own readers pass it on, as a module path."""
    name = re.sub(r"(_lora|\.lora|\.lora_linear_layer)\.down\.weight$", "", key.replace(".processor.", "."))
    if name.startswith("text"):
        return re.sub(r"self_attn\.to_([qkv])$", r"self_attn.\1_proj", name)
    return re.sub(r"to_out$", "to_out.0", name)


NAMES_OF_CORE = ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "unet.time_embedding.linear_1",
                 "unet.up_blocks.0.upsamplers.0.conv", "unet.up_blocks.1.upsamplers.0.conv")


def test_a_file_of_the_hosts_own_trainer_is_read_whole(tmp_path: Path) -> None:
    """Core's SaveLoRA also holds whole differences of norms and biases, which kohya's format alone has a place for."""
    stems = ["diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q", "diffusion_model.time_embed.0",
             "diffusion_model.output_blocks.2.1.conv", "diffusion_model.output_blocks.5.2.conv"]
    state: dict[str, Tensor] = {}
    for stem in stems:
        kernel = (3, 3) if stem.endswith("conv") else ()
        state[f"{stem}.lora_up.weight"] = torch.randn(6, 2, *[1] * len(kernel))
        state[f"{stem}.lora_down.weight"] = torch.randn(2, 6, *kernel)
        state[f"{stem}.alpha"] = torch.tensor(1.0)
        state[f"{stem}.diff_b"] = torch.randn(6)
    state["diffusion_model.out.0.diff"] = torch.randn(6)
    save_file(state, tmp_path / "core.safetensors")
    report = convert_lora(tmp_path / "core.safetensors", tmp_path / "out.safetensors", "kohya")
    assert (report.matched, report.total, report.unmatched) == (17, 17, ())
    assert "kinds: whole difference 5, LoRA 4" in report.text()
    read = load_lora(report.destination)
    assert {name: module.delta().tolist() for name, module in others(read).items()} == {
        "unet.conv_norm_out": state["diffusion_model.out.0.diff"].tolist(),
        **{f"{name}.bias": state[f"{stem}.diff_b"].tolist() for stem, name in zip(stems, NAMES_OF_CORE, strict=True)}}
    for format in ("diffusers", "peft"):
        with pytest.raises(AtelierError, match="5 of its 9 layers are changes of biases and norms"):
            convert_lora(tmp_path / "core.safetensors",
                         tmp_path / ("c.safetensors" if format == "diffusers" else "c"), format)
    read = plain(read)
    assert set(read) == set(NAMES_OF_CORE)
    for stem, name in zip(stems, NAMES_OF_CORE, strict=True):
        assert torch.equal(read[name].down, state[f"{stem}.lora_down.weight"])
        assert read[name].alpha == 1.0


def test_attention_processors_of_old_diffusers_are_read(tmp_path: Path) -> None:
    stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor"
    state = {f"{stem}.{layer}_lora.{half}.weight": torch.randn(4, 4)
             for layer in ("to_q", "to_out") for half in ("up", "down")}
    save_file(state, tmp_path / "old.safetensors")
    read = load_lora(tmp_path / "old.safetensors")
    assert {name.split("attn1.")[1] for name in read} == {"to_q", "to_out.0"}


@pytest.mark.parametrize("missing", ["", "{}", '{"peft_type": "OFT"}', "[1]", '{"peft_type": "LOHA", "alpha": "8"}',
                                     '{"peft_type": "LORA", "lora_alpha": "8"}'])
def test_broken_peft_folders_are_refused(missing: str, tmp_path: Path) -> None:
    folder = save_lora(tmp_path / "a", mixed("sd1", SETS["attention"]), format="peft")
    (folder / "adapter_config.json").write_text(missing, encoding="utf-8")
    with pytest.raises(AtelierError, match=r"adapter_config\.json"):
        convert_lora(folder, tmp_path / "out.safetensors")


# --- what else a file says -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_type_stays_unless_it_would_round(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = random_lora(chosen("sd1", SETS["attention"]), alpha=2.0, dtype=dtype)
    source = save_lora(tmp_path / "a.safetensors", weights, dtype=dtype)
    for format in SUFFIX:
        report = convert_lora(source, tmp_path / f"{format}{SUFFIX[format]}", format)
        assert report.dtype == str(dtype).removeprefix("torch.")
        assert_equal_deltas(deltas(load_lora(report.destination)), deltas(weights))
    odd = random_lora(chosen("sd1", SETS["attention"]), alpha=3.0, dtype=dtype)
    report = convert_lora(save_lora(tmp_path / "odd.safetensors", odd, dtype=dtype), tmp_path / "o.safetensors",
                          "diffusers")
    assert report.dtype == "float32"
    assert_equal_deltas(deltas(load_lora(report.destination)), deltas(odd))


def test_the_header_goes_along_without_what_no_longer_holds(tmp_path: Path) -> None:
    metadata = {"ss_output_name": "fox", "sshs_model_hash": "abc", "modelspec.hash_sha256": "0x1"}
    source = save_lora(tmp_path / "a.safetensors", mixed("sd1", SETS["attention"]), metadata=metadata)
    convert_lora(source, tmp_path / "b.safetensors", "diffusers")
    with safe_open(tmp_path / "b.safetensors", framework="pt") as file:
        assert file.metadata() == {"ss_output_name": "fox", "format": "pt"}


def test_sdxls_text_encoders_are_told_apart_in_kohyas_keys() -> None:
    keys = kohya_state(random_lora(chosen("sdxl", SETS["text encoders"])))
    assert {key.split("_text_model")[0] for key in keys} == {"lora_te1", "lora_te2"}
    assert {key.split("_text_model")[0] for key in kohya_state(random_lora(chosen("sd1", SETS["text encoders"])))} == {
        "lora_te"}


def test_sdxl_is_known_by_any_of_its_own_layers() -> None:
    """A LoRA of few layers, too, gets the names that other programs look for."""
    linear = torch.ones(2, 640), torch.ones(640, 2)
    block = "unet.down_blocks.1.attentions.0.transformer_blocks"
    cross = {f"{block}.0.attn2.to_k": LoraModule(torch.ones(2, 2048), torch.ones(640, 2), 1.0)}
    first, second = ({f"{block}.{n}.attn1.to_q": LoraModule(*linear, 1.0)} for n in range(2))
    for weights in (second, cross, {**first, **second}, {**first, **cross}):
        assert all(key.startswith("lora_unet_input_blocks_4_1_transformer_blocks_") for key in kohya_state(weights))
    sd1 = kohya_state({f"{block}.0.attn2.to_k": LoraModule(torch.ones(2, 768), torch.ones(640, 2), 1.0)})
    assert all(key.startswith("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0") for key in sd1)


def test_the_report_names_family_ranks_and_scale(tmp_path: Path) -> None:
    down, up = torch.ones(4, 1024), torch.ones(8, 4)
    stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    save_lora(tmp_path / "a.safetensors", {stem: LoraModule(down, up, 2.0)})
    text = convert_lora(tmp_path / "a.safetensors", tmp_path / "b", "peft").text()
    assert "Stable Diffusion 2.x, 1 layers (unet 1), rank 4, alpha / rank 0.5, float32" in text
    assert json.loads((tmp_path / "b" / "adapter_config.json").read_text(encoding="utf-8"))["lora_alpha"] == 2.0
