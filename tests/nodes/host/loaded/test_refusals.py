"""What Loaded Model refuses, each with a sentence, before anything is trained."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from kit.host_families import fake_parts, small_model
from kit.pack import pack_module

pytestmark = pytest.mark.host


@pytest.fixture
def parts(pack: ModuleType, tmp_path: Path) -> tuple[Any, Any, Any]:
    patcher = small_model("flux", tmp_path)
    return (patcher, *fake_parts(tmp_path, patcher))


def refused(pack: ModuleType, model: Any, clip: Any, vae: Any, match: str) -> None:
    progress = pack_module(pack, "atelier.progress").Progress()
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match=match):
        pack_module(pack, "nodes.host.loaded.model").open_loaded(model, clip, vae, guidance=None, progress=progress)


def test_a_model_merged_in_memory(pack: ModuleType, parts: tuple[Any, Any, Any]) -> None:
    model, clip, vae = parts
    model.cached_patcher_init = None
    refused(pack, model, clip, vae, "no file behind this MODEL.*loader itself")


@pytest.mark.parametrize(("part", "what"), [(1, "CLIP"), (2, "VAE")])
def test_parts_merged_in_memory(pack: ModuleType, parts: tuple[Any, Any, Any], part: int, what: str) -> None:
    parts[part].patcher.cached_patcher_init = None
    refused(pack, *parts, match=f"no file behind this {what}")


def test_a_model_with_a_lora(pack: ModuleType, parts: tuple[Any, Any, Any]) -> None:
    model, clip, vae = parts
    patched = model.clone()
    patched.add_patches({"diffusion_model.img_in.weight": ("diff", (model.model.diffusion_model.img_in.weight,))})
    refused(pack, patched, clip, vae, "changed after it was loaded: a LoRA")


def test_a_model_with_patched_attention(pack: ModuleType, parts: tuple[Any, Any, Any]) -> None:
    model, clip, vae = parts
    patched = model.clone()
    patched.set_model_attn1_patch(lambda q, k, v, extra: (q, k, v))
    refused(pack, patched, clip, vae, "attention or blocks")


def test_the_vae_of_another_model(pack: ModuleType, parts: tuple[Any, Any, Any]) -> None:
    from dataclasses import replace

    model, clip, vae = parts
    refused(pack, model, clip, replace(vae, latent_channels=4), "latents of 4 channels, and the model takes 16")


@pytest.mark.parametrize(("name", "guided", "said"), [
    ("z_image_turbo_bf16.safetensors", False, r"distilled for few steps.*base version"),
    ("flux-2-klein-4b.safetensors", False, "few steps"), ("flux1-schnell.safetensors", False, "few steps"),
    ("flux1-dev.safetensors", True, "distilled with guidance"), ("flux-2-klein-base-4b.safetensors", False, ""),
    ("krea2_raw_fp8_scaled.safetensors", False, ""), ("sd_xl_base_1.0.safetensors", False, "")])
def test_what_suffers_in_a_distilled_model_is_said(pack: ModuleType, name: str, guided: bool, said: str) -> None:
    model = SimpleNamespace(model_config=SimpleNamespace(unet_config={"guidance_embed": guided}))
    found = pack_module(pack, "nodes.host.loaded.kinds").distilled(model, name)
    assert re.search(said, found) if said else not found


def test_a_distilled_model_is_told_in_the_log(pack: ModuleType, parts: tuple[Any, Any, Any],
                                              caplog: pytest.LogCaptureFixture) -> None:
    progress = pack_module(pack, "atelier.progress").Progress()
    pack_module(pack, "nodes.host.loaded.model").open_loaded(*parts, guidance=None, progress=progress)
    assert "flux.safetensors was distilled with guidance" in caplog.text


def test_what_a_text_encoder_gives_is_kept_or_refused(pack: ModuleType) -> None:
    def row(**found: Any) -> dict[str, torch.Tensor]:
        clip = SimpleNamespace(tokenize=str, encode_from_tokens=lambda tokens, **options: found)
        return pack_module(pack, "nodes.host.loaded.conditions").encode_caption(clip, "a fox")

    kept = row(cond=torch.ones(1, 2), pooled_output=None, guidance=3.5)
    assert kept.keys() == {"text.cond", "number.guidance"} and kept["number.guidance"] == 3.5
    assert not kept["text.cond"].is_inference(), "it could not be trained with"
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match="gives extra as str"):
        row(extra="x")


@pytest.mark.parametrize(("name", "what"), [
    ("WAN21", "a video model"), ("LTXV", "a video model"), ("StableAudio1", "an audio model"),
    ("Hunyuan3Dv2", "a 3-D model"), ("ChromaRadiance", "works on pixels"), ("SDXLRefiner", "refiner"),
    ("HunyuanVideo15_SR_Distilled", "a video model"), ("PiD", "works on pixels")])
def test_models_that_make_no_pictures_from_latents(pack: ModuleType, name: str, what: str) -> None:
    import comfy.latent_formats
    import comfy.model_base

    kind = getattr(comfy.model_base, name)
    model = kind.__new__(kind)
    model.__dict__["latent_format"] = comfy.latent_formats.Wan21()
    refused(pack, SimpleNamespace(model=model), None, None, f"{name} is .*{what}.*Load a model for pictures")


@pytest.mark.parametrize(("classes", "network", "config", "names"), [
    (("Flux",), "Flux", {"image_model": "flux"}, ("flux", "flux-1-dev")),
    (("ZImage", "Lumina2"), "NextDiT", {"image_model": "lumina2"}, ("lumina2", "lumina-2")),
    (("SDXL",), "UNetModel", {"context_dim": 2048}, ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base")),
    ((), "UNetModel", {"context_dim": 1024}, ("sd_v2", "stable-diffusion-v2-512")),
    ((), "UNetModel", {"context_dim": 768}, ("sd_v1", "stable-diffusion-v1")),
    (("NewOne",), "Transformer", {}, ("newone", "newone"))])
def test_programs_that_sort_loras_find_the_models_name(pack: ModuleType, classes: tuple[str, ...], network: str,
                                                       config: dict[str, Any], names: tuple[str, str]) -> None:
    kind: type = type("BaseModel", (), {})
    for name in reversed(classes):
        kind = type(name, (kind,), {})
    model: Any = kind()
    model.model_config, model.diffusion_model = SimpleNamespace(unet_config=config), type(network, (), {})()
    kinds = pack_module(pack, "nodes.host.loaded.kinds")
    assert (kinds.base_version(model), kinds.architecture(model)) == names


def test_every_class_of_the_host_is_known_or_has_latents_of_pictures(pack: ModuleType) -> None:
    """A new model for videos in the host must not be trained as one for pictures."""
    import comfy.model_base
    import comfy.supported_models as supported

    kinds = pack_module(pack, "nodes.host.loaded.kinds")
    refusal = pack_module(pack, "atelier.errors").AtelierError
    taken = set()
    for config in supported.models:
        latents = config.latent_format
        for name in dir(comfy.model_base):
            kind = getattr(comfy.model_base, name)
            if isinstance(kind, type) and issubclass(kind, comfy.model_base.BaseModel) and name == config.__name__:
                model = kind.__new__(kind)
                model.__dict__["latent_format"] = latents()
                try:
                    kinds.check_kind(model)
                    taken.add(name)
                except refusal:
                    pass
    assert {"Flux", "Flux2", "QwenImage", "Anima", "Krea2", "Lumina2", "SD3", "Chroma", "SDXL"} <= taken
    words = ("Video", "WAN", "LTX", "Audio", "3D", "SV", "AV")
    moving = {name for name in taken if any(word in name for word in words)}
    assert not moving


def test_a_handle_of_the_hosts_model_is_for_training_alone(pack: ModuleType) -> None:
    sockets, errors = pack_module(pack, "nodes.sockets"), pack_module(pack, "atelier.errors")
    with pytest.raises(errors.AtelierError, match="for Train LoRA and Prior Pictures alone"):
        sockets.on_disk(SimpleNamespace())


def kind_said(pack: ModuleType, dimensions: int, **attributes: Any) -> str:
    """What is said of a new kind of model, whose latents have as many dimensions; empty where it is taken."""
    model = type("NewOne", (), {"latent_format": SimpleNamespace(latent_dimensions=dimensions), **attributes})()
    try:
        pack_module(pack, "nodes.host.loaded.kinds").check_kind(model)
    except pack_module(pack, "atelier.errors").AtelierError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("dimensions", "what"), [
    (3, "NewOne is a model with latents in time, most likely for video."),
    (1, "NewOne is a model whose latents are no pictures."), (4, "NewOne is a model whose latents are no pictures.")])
def test_a_model_of_a_new_kind_is_judged_by_its_latents(pack: ModuleType, dimensions: int, what: str) -> None:
    assert kind_said(pack, dimensions).startswith(what)
    assert kind_said(pack, 2) == ""


def test_an_inpainting_model_is_sent_to_its_file(pack: ModuleType) -> None:
    said = kind_said(pack, 2, concat_keys=("mask",))
    assert said.startswith("This NewOne is an inpainting or editing model") and "Open Model" in said
    assert kind_said(pack, 2, concat_keys=()) == ""


@pytest.mark.parametrize(("name", "taken"), [("X0", False), ("IMG_TO_IMG_FLOW", False), ("CONST", True), ("EPS", True)])
def test_a_model_that_knows_no_noise_is_refused(pack: ModuleType, name: str, taken: bool) -> None:
    import comfy.model_sampling

    kind = getattr(comfy.model_sampling, name)
    objective = pack_module(pack, "nodes.host.loaded.objective").HostObjective(kind.__new__(kind), None, 8)
    if taken:
        objective.check()
        return
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match="into another and knows no noise"):
        objective.check()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_of_which_the_vae_makes_nothing_is_named(pack: ModuleType, value: float) -> None:
    """A half-precision VAE can overflow, and training would go on with broken weights."""
    pictures = pack_module(pack, "nodes.host.loaded.pictures")
    vae = SimpleNamespace(encode=lambda pixels: torch.full((1, 4, 2, 2), value))
    encode = pictures.HostPictureEncoder(vae, SimpleNamespace(process_in=lambda latents: latents))
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match=r"not finite for fox\.png"):
        encode([SimpleNamespace(image=Path("fox.png"))], [SimpleNamespace(pixels=[[[0, 0, 0]] * 16] * 16)], False)


@pytest.mark.parametrize(("guidance", "told"), [(None, 1.5), (2.5, 2.5), (0.0, 0.0)])
def test_a_chosen_guidance_takes_the_place_of_the_text_encoders(pack: ModuleType, guidance: float | None, told: float
                                                                ) -> None:
    given: dict[str, Any] = {}
    model = SimpleNamespace(latent_format=SimpleNamespace(spacial_downscale_ratio=8),
                            extra_conds=lambda **conditions: given.update(conditions) or {})
    row = {"text.cond": torch.ones(1, 2), "number.guidance": torch.tensor(1.5)}
    pack_module(pack, "nodes.host.loaded.conditions").network_inputs(model, row, torch.zeros(1, 4, 3, 2), guidance)
    assert given["guidance"] == told and (given["width"], given["height"]) == (16, 24)


def test_a_schedule_made_during_a_prompt_can_be_trained_with(pack: ModuleType) -> None:
    """The host patches a model in inference mode, of which no tensor may take part in a gradient."""
    module = torch.nn.Module()
    with torch.inference_mode():
        module.register_buffer("sigmas", torch.ones(3))
    module.register_buffer("none", None)
    copied = pack_module(pack, "nodes.host.loaded.model")._out_of_inference(module)
    assert module.sigmas.is_inference() and not copied.sigmas.is_inference() and copied.none is None
    assert torch.equal(copied.sigmas, module.sigmas)
