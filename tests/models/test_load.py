"""Handles and components, straight from a single file and from a folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from kit.checkpoints import WRITERS, write_bare_unet, write_sd1, write_sd2, write_sdxl
from kit.offline import no_network
from safetensors.torch import load_file, save_file

from atelier.convert import ConvertOptions, to_folder
from atelier.errors import AtelierError
from atelier.models.families import FAMILIES
from atelier.models.inspect import inspect
from atelier.models.load import load_scheduler_config, load_text, load_unet, load_vae
from atelier.models.open import open_model
from atelier.progress import Interrupted, Progress

TEXTS = ["a cat wearing neon-glasses", "", "word " * 90]


@pytest.mark.parametrize("family", WRITERS)
def test_file_and_folder_give_the_same_components(family: str, tmp_path: Path) -> None:
    source = WRITERS[family](tmp_path / "model.safetensors", shape="tiny")
    to_folder(source, tmp_path / "folder")
    with no_network():
        file, folder = open_model(source), open_model(tmp_path / "folder")
        assert (file.family, file.dtype, file.is_folder) == (family, "float16", False)
        assert (folder.family, folder.prediction_type, folder.is_folder) == (family, file.prediction_type, True)
        assert file.fingerprint == folder.fingerprint
        pairs = [(load(file), load(folder)) for load in (load_unet, load_vae)]
        batches = [load_text(model).encode(TEXTS) for model in (file, folder)]
    for ours, theirs in pairs:
        assert dict(ours.config) | {"_name_or_path": ""} == dict(theirs.config) | {"_name_or_path": ""}
        assert all(torch.equal(a, theirs.state_dict()[name]) for name, a in ours.state_dict().items())
        assert all(a.dtype == torch.float32 and not a.is_meta and not a.requires_grad for a in ours.parameters())
    assert torch.equal(batches[0].embeds, batches[1].embeds)
    assert batches[0].embeds.shape == (3, 77, pairs[0][0].config.cross_attention_dim)
    for component in (pairs[0][0], pairs[1][0]):
        assert not component.training


@pytest.mark.parametrize("family", WRITERS)
def test_embeddings_are_those_of_diffusers_pipelines(family: str, tmp_path: Path) -> None:
    source = WRITERS[family](tmp_path / "model.safetensors", shape="tiny")
    to_folder(source, tmp_path / "folder")
    text = load_text(open_model(source))
    batch = text.encode(TEXTS)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "folder", torch_dtype=torch.float32)
    if family.startswith("sdxl"):
        embeds, _, pooled, _ = pipeline.encode_prompt(TEXTS, device="cpu", do_classifier_free_guidance=False)
        assert batch.pooled is not None and torch.allclose(batch.pooled, pooled.float(), atol=1e-5)
    else:
        embeds, _ = pipeline.encode_prompt(TEXTS, "cpu", 1, False)
        assert batch.pooled is None
    assert torch.allclose(batch.embeds, embeds.float(), atol=1e-5)


def test_gradients_reach_the_text_encoder(tmp_path: Path) -> None:
    text = load_text(open_model(write_sdxl(tmp_path / "model.safetensors", shape="tiny")))
    assert list(text.encoders) == ["text_encoder", "text_encoder_2"]
    for encoder in text.encoders.values():
        encoder.requires_grad_(True)
    batch = text.encode(["a cat"])
    assert batch.pooled is not None
    (batch.embeds.sum() + batch.pooled.sum()).backward()
    for encoder in text.encoders.values():
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_tokens_are_counted(tmp_path: Path) -> None:
    text = load_text(open_model(write_sd1(tmp_path / "model.safetensors", shape="tiny")))
    assert text.count("") == (0, 0)
    assert text.count("a cat wearing neon glasses") == (5, 0)
    assert text.count("cat " * 75) == (75, 0)
    assert text.count("cat " * 80) == (75, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_components_come_in_the_type_asked_for(dtype: torch.dtype, tmp_path: Path) -> None:
    model = open_model(write_sd1(tmp_path / "model.safetensors", shape="tiny", dtype="bfloat16"))
    assert model.dtype == "bfloat16"
    stored = load_file(model.path)
    unet = load_unet(model, dtype=dtype)
    assert {p.dtype for p in unet.parameters()} == {dtype}
    assert torch.equal(unet.conv_in.weight, stored["model.diffusion_model.input_blocks.0.0.weight"].to(dtype))
    assert {p.dtype for p in load_text(model, dtype=dtype).encoders["text_encoder"].parameters()} == {dtype}


def test_pickles_are_opened_too(tmp_path: Path) -> None:
    same = open_model(write_sd1(tmp_path / "model.safetensors", shape="tiny"))
    pickle = open_model(write_sd1(tmp_path / "model.ckpt", shape="tiny"))
    assert pickle.fingerprint == same.fingerprint
    assert torch.equal(load_unet(pickle).conv_in.weight, load_unet(same).conv_in.weight)


def test_loaded_weights_do_not_depend_on_the_file_any_more(tmp_path: Path) -> None:
    """A memory map would: the file could not be replaced on Windows, and would change under the model elsewhere."""
    model = open_model(write_sd1(tmp_path / "model.safetensors", shape="tiny", dtype="float32"))
    unet = load_unet(model)
    before = unet.conv_in.weight.clone()
    with model.path.open("r+b") as file:
        file.seek(-3_000_000, 2)
        file.truncate()
    assert torch.equal(unet.conv_in.weight, before)


def test_fingerprint_follows_content_alone(tmp_path: Path) -> None:
    first = open_model(write_sd1(tmp_path / "a.safetensors", shape="tiny"))
    shutil.copy(first.path, tmp_path / "b.safetensors")
    assert open_model(tmp_path / "b.safetensors").fingerprint == first.fingerprint
    os.utime(first.path, (1, 1))
    assert open_model(first.path) == first, "when a file was written does not make another model of it"
    tensors = load_file(first.path)
    tensors["first_stage_model.post_quant_conv.bias"][0] += 1
    save_file(tensors, tmp_path / "b.safetensors")
    assert open_model(tmp_path / "b.safetensors").fingerprint != first.fingerprint


def test_the_reading_for_a_fingerprint_is_told_and_can_be_stopped(tmp_path: Path) -> None:
    phases = []

    class Stop(Progress):
        def phase(self, name: str, total: int) -> None:
            phases.append(name)

        def check(self) -> None:
            raise Interrupted

    path = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    with pytest.raises(Interrupted):
        open_model(path, progress=Stop())
    assert phases == ["reading"]
    first = open_model(path).fingerprint
    assert open_model(path, progress=Stop()).fingerprint == first and phases == ["reading"], "it is read once"


def test_scheduler_configs(tmp_path: Path) -> None:
    sd1 = open_model(write_sd1(tmp_path / "sd1.safetensors", shape="tiny"))
    with_scheduler = diffusers.DDPMScheduler.from_config(load_scheduler_config(sd1))
    # Stable Diffusion's published noise schedule: alpha-bar of the last step.
    assert with_scheduler.alphas_cumprod[-1].item() == pytest.approx(0.00466, rel=1e-3)
    assert with_scheduler.config.prediction_type == "epsilon"
    source = write_sd2(tmp_path / "sd2.safetensors", shape="tiny")
    chosen = open_model(source, prediction_type="v_prediction")
    assert diffusers.DDPMScheduler.from_config(load_scheduler_config(chosen)).config.prediction_type == "v_prediction"
    turbo = open_model(write_sd2(tmp_path / "sd_turbo.safetensors", shape="tiny"))
    euler = diffusers.EulerDiscreteScheduler.from_config(load_scheduler_config(turbo))
    euler.set_timesteps(1)
    assert euler.timesteps.tolist() == [999.0]
    # A folder's own scheduler is kept but for what the person chose.
    to_folder(source, tmp_path / "folder", ConvertOptions(prediction_type="v_prediction"))
    folder = open_model(tmp_path / "folder", prediction_type="epsilon")
    assert load_scheduler_config(folder)["prediction_type"] == "epsilon"
    assert open_model(tmp_path / "folder").prediction_type == "v_prediction"
    rescaled = open_model(write_sdxl(tmp_path / "z.safetensors", shape="tiny", v_prediction=True, zero_snr=True))
    final = diffusers.EulerDiscreteScheduler.from_config(load_scheduler_config(rescaled)).alphas_cumprod[-1]
    assert final < 1e-6


def test_sd2_is_told_apart_as_the_host_does(tmp_path: Path) -> None:
    """The one statistic that known SD2 models differ in; the reason is stated."""
    for v_prediction, expected in ((True, "v_prediction"), (False, "epsilon")):
        path = write_sd2(tmp_path / "model.safetensors", shape="four_level", v_prediction=v_prediction)
        found = inspect(path)
        assert found.prediction_type == expected and "rule of thumb" in found.prediction_because


def test_inspection(tmp_path: Path) -> None:
    found = inspect(write_sd1(tmp_path / "model.safetensors", shape="tiny", ema=True))
    assert (found.family, found.ema, found.dtype) == ("sd1", True, "float16")
    assert set(found.components) == {"unet", "vae", "text_encoder"}
    assert found.parameters == sum(found.components.values())
    assert found.as_dict()["advice"]["steps"] == found.advice.steps
    for words in ("Stable Diffusion 1.x", "epsilon", "EMA", found.advice.sampler):
        assert words in found.text()


NAMES = {"sd_turbo.safetensors": "sd-turbo", "v2-1_512-ema-pruned.safetensors": "sd2",
         "sd_xl_turbo_1.0_fp16.safetensors": "sdxl-turbo", "sdxl_lightning_4step.safetensors": "sdxl-lightning-4",
         "SDXL-Lightning_2steps.safetensors": "sdxl-lightning-2", "sdxl_lightning_8step_unet.safetensors":
         "sdxl-lightning-8", "juggernautXL_v9.safetensors": "sdxl"}


@pytest.mark.parametrize(("name", "kind"), NAMES.items())
def test_distilled_models_are_known_by_name(name: str, kind: str, tmp_path: Path) -> None:
    write = write_sd2 if kind.startswith("sd2") or kind == "sd-turbo" else write_sdxl
    found = inspect(write(tmp_path / name, shape="tiny"))
    assert found.kind == kind
    if "lightning" in kind:
        assert found.advice.steps == int(kind[-1]) and found.advice.cfg == 1


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_bare_unets(layout: str, tmp_path: Path) -> None:
    """SDXL-Lightning comes as a UNet alone, under diffusers' names."""
    path = write_bare_unet(tmp_path / "sdxl_lightning_4step_unet.safetensors")
    unet = load_unet(open_model(path))
    if layout == "diffusers":
        save_file({name: value.half() for name, value in unet.state_dict().items()}, path)
    model = open_model(path)
    assert model.family == "sdxl"
    assert torch.equal(load_unet(model).conv_out.weight, unet.conv_out.weight)
    with pytest.raises(AtelierError, match="has no vae"):
        load_vae(model)
    report = to_folder(path, tmp_path / "folder")
    assert "VAE, text encoder (CLIP-L), text encoder (CLIP-G)" in report.text()
    loaded = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "folder", subfolder="unet")
    assert torch.equal(loaded.conv_out.weight, unet.conv_out.weight)


def test_every_family_has_a_kind_and_pipelines_exist() -> None:
    from atelier.models.kinds import KINDS

    assert {kind.family for kind in KINDS} == set(FAMILIES)
    for family in FAMILIES.values():
        assert hasattr(diffusers, family.pipeline)
    for kind in KINDS:
        assert hasattr(diffusers, kind.scheduler)
