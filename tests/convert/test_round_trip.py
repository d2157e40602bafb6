"""File -> folder -> file keeps every bit, for every family; the folder loads offline in its diffusers pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from kit.checkpoints import WRITERS, write_sd1, write_sd2, write_sdxl
from kit.offline import no_network
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from atelier.convert import ConvertOptions, to_checkpoint, to_folder
from atelier.errors import AtelierError
from atelier.models.families import FAMILIES
from atelier.models.inspect import inspect
from atelier.models.load import load_scheduler_config
from atelier.models.open import open_model

UNUSED = ("position_ids", "logit_scale")


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Everything in a file, read by the reference implementation."""
    return load_file(path)


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("family", WRITERS)
def test_file_to_folder_to_file_is_bit_equal(family: str, tmp_path: Path) -> None:
    source = WRITERS[family](tmp_path / "modèle 1.safetensors", shape="tiny")
    report = to_folder(source, tmp_path / "as folder")
    assert report.family == family
    to_checkpoint(tmp_path / "as folder", tmp_path / "back.safetensors")

    before, after = tensors(source), tensors(tmp_path / "back.safetensors")
    # What no model reads: constants, and of SD2's text encoder the last layer and the projection.
    unused = {name for name in before if name.endswith(UNUSED)}
    if family.startswith(("sd2", "x4")):
        unused |= {name for name in before if "resblocks.2." in name or name.endswith("text_projection")}
    assert_equal({name: tensor for name, tensor in before.items() if name not in unused}, after)
    assert set(report.dropped) == unused

    # What is left is stable: another round changes nothing.
    to_folder(tmp_path / "back.safetensors", tmp_path / "again")
    for file in (tmp_path / "as folder").rglob("*.safetensors"):
        assert_equal(tensors(file), tensors(tmp_path / "again" / file.relative_to(tmp_path / "as folder")))


@pytest.mark.parametrize("family", WRITERS)
def test_folder_loads_offline_in_its_pipeline(family: str, tmp_path: Path) -> None:
    source = WRITERS[family](tmp_path / "model.safetensors", shape="tiny")
    to_folder(source, tmp_path / "folder")
    with no_network():
        pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "folder")
    assert type(pipeline).__name__ == FAMILIES[family].pipeline
    # diffusers and transformers fill what a file lacks with random numbers and only warn, so the numbers are compared.
    stored = tensors(source)
    conv_in = stored["model.diffusion_model.input_blocks.0.0.weight"]
    assert torch.equal(pipeline.unet.conv_in.weight, conv_in.float())
    saved = {name: tensors(tmp_path / "folder" / name / file) for name, file in (
        ("unet", "diffusion_pytorch_model.safetensors"), ("vae", "diffusion_pytorch_model.safetensors"))}
    for name, file in saved.items():
        assert_equal({k: v.half() for k, v in getattr(pipeline, name).state_dict().items()}, file)
    for spec in FAMILIES[family].text_encoders:
        file = tensors(tmp_path / "folder" / spec.folder / "model.safetensors")
        loaded = getattr(pipeline, spec.folder).state_dict()
        assert all(name.startswith(("text_model.", "text_projection.")) for name in file)
        loaded = {name if name in file else f"text_model.{name}": value.half() for name, value in loaded.items()}
        assert_equal(loaded, file)


def test_forms_that_are_no_renaming(tmp_path: Path) -> None:
    """OpenCLIP's stacked and transposed matrices and the VAE's 1x1 convolutions, against the definitions."""
    source = write_sdxl(tmp_path / "model.safetensors", shape="tiny")
    to_folder(source, tmp_path / "folder")
    stored, text = tensors(source), tensors(tmp_path / "folder/text_encoder_2/model.safetensors")
    prefix = "conditioner.embedders.1.model."
    assert torch.equal(text["text_projection.weight"], stored[f"{prefix}text_projection"].t())
    for kind in ("weight", "bias"):
        parts = [text[f"text_model.encoder.layers.1.self_attn.{part}_proj.{kind}"] for part in "qkv"]
        assert torch.equal(torch.cat(parts), stored[f"{prefix}transformer.resblocks.1.attn.in_proj_{kind}"])
    vae = tensors(tmp_path / "folder/vae/diffusion_pytorch_model.safetensors")
    query = stored["first_stage_model.decoder.mid.attn_1.q.weight"]
    assert torch.equal(vae["decoder.mid_block.attentions.0.to_q.weight"], query[:, :, 0, 0])


def test_sharded_half_precision_folder_without_text_model_prefix(tmp_path: Path) -> None:
    """What save_pretrained of today's libraries writes: shards, a variant, and text encoder names without their
    root."""
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    to_folder(source, tmp_path / "folder")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "folder", torch_dtype=torch.float16)
    pipeline.save_pretrained(tmp_path / "saved", variant="fp16", max_shard_size="1MB")
    assert list((tmp_path / "saved" / "unet").glob("*.index*.json"))
    to_checkpoint(tmp_path / "saved", tmp_path / "back.safetensors")
    before = {name: t for name, t in tensors(source).items() if not name.endswith(UNUSED)}
    assert_equal(before, tensors(tmp_path / "back.safetensors"))


def test_folder_with_the_attention_names_of_old_diffusers(tmp_path: Path) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    to_folder(source, tmp_path / "folder")
    file = tmp_path / "folder" / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in tensors(file).items():
        for new, former in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
        renamed[name] = tensor
    assert any("proj_attn" in name for name in renamed)
    save_file(renamed, file)
    to_checkpoint(tmp_path / "folder", tmp_path / "back.safetensors")
    before = {name: t for name, t in tensors(source).items() if not name.endswith(UNUSED)}
    assert_equal(before, tensors(tmp_path / "back.safetensors"))


def test_pickle_becomes_safetensors(tmp_path: Path) -> None:
    same = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    write_sd1(tmp_path / "model.ckpt", shape="tiny")
    for convert, target in ((to_folder, tmp_path / "folder"), (to_checkpoint, tmp_path / "out.safetensors")):
        convert(tmp_path / "model.ckpt", target)
    to_folder(same, tmp_path / "reference")
    for file in (tmp_path / "reference").rglob("*.safetensors"):
        assert_equal(tensors(file), tensors(tmp_path / "folder" / file.relative_to(tmp_path / "reference")))
    before = {name: t for name, t in tensors(same).items() if not name.endswith(UNUSED)}
    assert_equal(before, tensors(tmp_path / "out.safetensors"))


def test_pruning_drops_copies_and_constants(tmp_path: Path) -> None:
    source = write_sd1(tmp_path / "model.safetensors", shape="tiny", ema=True)
    report = to_checkpoint(source, tmp_path / "pruned.safetensors")
    names = tensors(tmp_path / "pruned.safetensors").keys()
    assert not any(name.startswith("model_ema.") or name == "alphas_cumprod" for name in names)
    assert {"alphas_cumprod", "model_ema.num_updates"} <= set(report.dropped)
    assert (tmp_path / "pruned.safetensors").stat().st_size < 0.8 * source.stat().st_size
    to_checkpoint(source, tmp_path / "whole.safetensors", ConvertOptions(prune=False))
    assert_equal(tensors(source), tensors(tmp_path / "whole.safetensors"))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_casts_are_those_of_torch(precision: str, tmp_path: Path) -> None:
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    source = write_sdxl(tmp_path / "model.safetensors", shape="tiny", dtype="float32")
    options = ConvertOptions(precision=precision)
    report = to_folder(source, tmp_path / "folder", options)
    to_checkpoint(source, tmp_path / "cast.safetensors", options)
    to_checkpoint(tmp_path / "folder", tmp_path / "back.safetensors")
    expected = {name: tensor.to(dtype) for name, tensor in tensors(source).items() if not name.endswith("position_ids")}
    assert_equal(expected, tensors(tmp_path / "cast.safetensors"))
    assert_equal({k: v for k, v in expected.items() if not k.endswith(UNUSED)}, tensors(tmp_path / "back.safetensors"))
    assert report.dtype == str(dtype).removeprefix("torch.")


def test_configs_of_an_inpainting_model_and_of_sdxl(tmp_path: Path) -> None:
    """Spot checks against the published configurations."""
    to_folder(write_sd1(tmp_path / "i.safetensors", shape="tiny", in_channels=9), tmp_path / "i")
    assert json.loads((tmp_path / "i/unet/config.json").read_text())["in_channels"] == 9
    to_folder(write_sdxl(tmp_path / "x.safetensors", shape="tiny"), tmp_path / "x")
    unet = json.loads((tmp_path / "x/unet/config.json").read_text())
    assert unet["addition_embed_type"] == "text_time" and unet["addition_time_embed_dim"] == 256
    vae = json.loads((tmp_path / "x/vae/config.json").read_text())
    assert vae["scaling_factor"] == 0.13025 and vae["force_upcast"] is True
    second = json.loads((tmp_path / "x/text_encoder_2/config.json").read_text())
    assert second["hidden_act"] == "gelu" and second["projection_dim"] == 64


def test_merge_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    source = write_sd2(tmp_path / "model.safetensors", shape="tiny")
    target = "text_model.encoder.layers.1.self_attn.k_proj.weight"

    def merge(component: str, name: str):
        return (lambda tensor: tensor + 1) if (component, name) == ("text_encoder", target) else None

    to_checkpoint(source, tmp_path / "merged.safetensors", merge=merge)
    before, after = tensors(source), tensors(tmp_path / "merged.safetensors")
    stacked = "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight"
    width = before[stacked].shape[1]
    expected = before[stacked].clone()
    expected[width:2 * width] += 1
    assert torch.equal(after.pop(stacked), expected)
    assert_equal({name: before[name] for name in after}, after)


def test_v_prediction_travels_in_every_form(tmp_path: Path) -> None:
    source = write_sdxl(tmp_path / "v.safetensors", shape="tiny", v_prediction=True, zero_snr=True)
    report = to_folder(source, tmp_path / "folder")
    assert report.prediction_type == "v_prediction" and "v_pred" in report.prediction_because
    scheduler = json.loads((tmp_path / "folder/scheduler/scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "v_prediction" and scheduler["rescale_betas_zero_snr"] is True
    to_checkpoint(tmp_path / "folder", tmp_path / "back.safetensors")
    assert {"v_pred", "ztsnr"} <= tensors(tmp_path / "back.safetensors").keys()
    with safe_open(tmp_path / "back.safetensors", "pt") as file:
        assert file.metadata()["modelspec.prediction_type"] == "v"


def test_a_choice_of_epsilon_leaves_no_sign_of_the_other(tmp_path: Path) -> None:
    source = write_sdxl(tmp_path / "v.safetensors", shape="tiny", v_prediction=True, zero_snr=True)
    for prune in (True, False):
        options = ConvertOptions(prediction_type="epsilon", prune=prune)
        report = to_checkpoint(source, tmp_path / "eps.safetensors", options)
        assert not {"v_pred", "ztsnr"} & tensors(tmp_path / "eps.safetensors").keys()
        assert "v_pred, ztsnr" in report.text() and "v_pred" not in report.dropped
        found = inspect(tmp_path / "eps.safetensors")
        assert (found.prediction_type, found.zero_terminal_snr) == ("epsilon", False)
    to_folder(source, tmp_path / "folder", ConvertOptions(prediction_type="epsilon"))
    scheduler = json.loads((tmp_path / "folder/scheduler/scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "epsilon" and not scheduler.get("rescale_betas_zero_snr")


EDM = {"Playground": {"edm_mean": torch.randn(4), "edm_std": torch.rand(4)},
       "CosXL": {"edm_vpred.sigma_max": torch.tensor(120.0), "edm_vpred.sigma_min": torch.tensor(0.002)}}


@pytest.mark.parametrize("name", EDM)
def test_models_with_other_noise_stay_checkpoints(name: str, tmp_path: Path) -> None:
    """Their few extra tensors say how to sample them: a file keeps these, and nothing else can."""
    source = tmp_path / "model.safetensors"
    save_file(tensors(write_sdxl(source, shape="tiny")) | EDM[name], source)
    assert f"noise is that of {name}" in inspect(source).text()
    model = open_model(source)
    to_checkpoint(source, tmp_path / "out.safetensors", ConvertOptions(prediction_type=model.prediction_type))
    written = tensors(tmp_path / "out.safetensors")
    assert_equal(EDM[name], {key: written[key] for key in written if key.startswith("edm")})
    assert "v_pred" not in written
    with pytest.raises(AtelierError, match=f"{name}.*noise"):
        to_folder(source, tmp_path / "folder")
    with pytest.raises(AtelierError, match=f"{name}.*noise"):
        load_scheduler_config(model)
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bits_become_more(stored: torch.dtype, precision: str, tmp_path: Path) -> None:
    source = tmp_path / "model.safetensors"
    whole = tensors(write_sd1(source, shape="tiny"))
    save_file({name: t.to(stored) if t.is_floating_point() else t for name, t in whole.items()}, source)
    to_checkpoint(source, tmp_path / "out.safetensors", ConvertOptions(precision=precision))
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    name = "model.diffusion_model.out.2.weight"
    assert_equal({name: tensors(source)[name].to(dtype)}, {name: tensors(tmp_path / "out.safetensors")[name]})


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_a_folder_in_another_precision_says_so(key: str, tmp_path: Path) -> None:
    """transformers loads weights in the type that the configuration names."""
    folder = tmp_path / "folder"
    to_folder(write_sd1(tmp_path / "model.safetensors", shape="tiny"), folder)
    config = json.loads((folder / "text_encoder/config.json").read_text())
    (folder / "text_encoder/config.json").write_text(json.dumps(config | {key: "float16"}))
    to_folder(folder, tmp_path / "kept")
    assert json.loads((tmp_path / "kept/text_encoder/config.json").read_text())[key] == "float16"
    to_folder(folder, tmp_path / "cast", ConvertOptions(precision="fp32"))
    encoder = transformers.CLIPTextModel.from_pretrained(tmp_path / "cast/text_encoder", dtype="auto")
    assert encoder.dtype == torch.float32


SURPLUS = {
    "sd1": ["first_stage_model.model_ema.num_updates", "first_stage_model.loss.logvar",
            "cond_stage_model.transformer.vision_model.embeddings.class_embedding"],
    "sd2": ["cond_stage_model.model.attn_mask", "cond_stage_model.model.visual.transformer.resblocks.9.ln_1.weight"],
    "sdxl": ["conditioner.embedders.1.model.attn_mask", "conditioner.embedders.1.model.visual.proj"],
}


@pytest.mark.parametrize("family", SURPLUS)
def test_what_training_left_beside_a_component_is_left_out(family: str, tmp_path: Path) -> None:
    source = WRITERS[family](tmp_path / "model.safetensors", shape="tiny")
    plain = tensors(source)
    to_folder(source, tmp_path / "expected")
    to_checkpoint(source, tmp_path / "expected.safetensors")
    save_file(plain | {name: torch.ones(3) for name in SURPLUS[family]}, source)
    report = to_folder(source, tmp_path / "folder")
    assert set(SURPLUS[family]) <= set(report.dropped)
    for file in (tmp_path / "expected").rglob("*.safetensors"):
        assert_equal(tensors(file), tensors(tmp_path / "folder" / file.relative_to(tmp_path / "expected")))
    report = to_checkpoint(source, tmp_path / "out.safetensors")
    assert set(SURPLUS[family]) <= set(report.dropped)
    assert_equal(tensors(tmp_path / "expected.safetensors"), tensors(tmp_path / "out.safetensors"))
    to_checkpoint(source, tmp_path / "whole.safetensors", ConvertOptions(prune=False))
    assert_equal(tensors(source), tensors(tmp_path / "whole.safetensors"))


def test_a_projection_kept_as_a_linear_layer_is_the_same(tmp_path: Path) -> None:
    source, name = tmp_path / "model.safetensors", "conditioner.embedders.1.model.text_projection"
    usual = tensors(write_sdxl(source, shape="tiny"))
    linear = {key: tensor for key, tensor in usual.items() if key != name}
    save_file(linear | {f"{name}.weight": usual[name].t().contiguous()}, source)
    to_folder(source, tmp_path / "folder")
    projection = tensors(tmp_path / "folder/text_encoder_2/model.safetensors")["text_projection.weight"]
    assert torch.equal(projection, usual[name].t())
    to_checkpoint(source, tmp_path / "out.safetensors")
    written = tensors(tmp_path / "out.safetensors")
    assert torch.equal(written[name], usual[name]) and f"{name}.weight" not in written


def test_prediction_type_is_the_users_choice(tmp_path: Path) -> None:
    source = write_sd2(tmp_path / "model.safetensors", shape="tiny")
    options = ConvertOptions(prediction_type="v_prediction")
    report = to_folder(source, tmp_path / "folder", options)
    assert (report.prediction_type, report.prediction_because) == ("v_prediction", "choice")
    scheduler = json.loads((tmp_path / "folder/scheduler/scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "v_prediction"
