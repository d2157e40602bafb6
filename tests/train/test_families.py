"""Training of every family: three steps, resumed bit for bit, with what each family's UNet is conditioned on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline
from kit.checkpoints import write_sd1, write_sd2, write_sdxl, write_sdxl_refiner, write_x4_upscaler
from kit.pictures import noise_picture, write_pictures
from kit.training_loop import request
from PIL import Image
from safetensors.torch import load_file, save_file

from atelier.convert import to_folder
from atelier.dataset.encode import encode
from atelier.dataset.folder import CaptionSource, FolderOptions, read_folder
from atelier.dataset.types import Crop, Resolution, TrainingSet
from atelier.errors import AtelierError
from atelier.lora.file import read_metadata
from atelier.models.load import load_unet
from atelier.models.open import open_model
from atelier.progress import Interrupted, Progress
from atelier.train import diffusers_trainable as trainable_module
from atelier.train.batch_loader import BatchLoader
from atelier.train.bucket_sampler import SampleUse
from atelier.train.devices import RunPaths
from atelier.train.request.presets import build_request
from atelier.train.request.request import TrainRequest
from atelier.train.run import train

OPTIONS = dict(monitor="off", patience=0, learning_rate=1e-2, text_learning_rate=1e-2, caption_dropout=0.2,
               precision="fp32")
CONFIG = request(dict(rank=4, alpha=8), OPTIONS, steps=3)
WITH_TEXT = CONFIG.override(dict(train_text_encoder=True))

MODELS: dict[str, tuple[str, Callable[..., Path], str]] = {
    "sd1": ("sd1", write_sd1, "epsilon"), "sd2": ("sd2_base", write_sd2, "epsilon"),
    "sd2-v": ("sd2_768", write_sd2, "v_prediction"), "sd-turbo": ("sd_turbo", write_sd2, "auto"),
    "sdxl": ("sd_xl_base", write_sdxl, "auto"),
    "sd1-inpainting": ("sd1_inpainting", partial(write_sd1, in_channels=9), "auto"),
    "sdxl-inpainting": ("sdxl_inpainting", partial(write_sdxl, in_channels=9), "auto"),
}
"""By kind: name of the checkpoint, who writes it, and the prediction type to state."""

CASES = {**{kind: (kind, CONFIG) for kind in MODELS}, "sd1 with text": ("sd1", WITH_TEXT),
         "sdxl with text": ("sdxl", WITH_TEXT),
         "sdxl with text, bfloat16": ("sdxl", WITH_TEXT.override(dict(precision="bf16")))}


class After(Progress):
    """Interrupts once so many steps are done."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done = steps, 0

    def measure(self, values: Any) -> None:
        self.done = int(values["step"])

    def check(self) -> None:
        if self.done >= self.steps:
            raise Interrupted


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny checkpoint of a kind, made once."""
    folder, made = tmp_path_factory.mktemp("models"), {}

    def _checkpoint(kind: str) -> Path:
        if kind not in made:
            name, write, _ = MODELS[kind]
            made[kind] = write(folder / f"{name}.safetensors", shape="tiny")
        return made[kind]
    return _checkpoint


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return read_folder(write_pictures(tmp_path_factory.mktemp("pictures"), [(80, 64), (64, 64), (150, 100)]),
                       FolderOptions(resolution=Resolution(64, Crop.CENTER)))


def place(folder: Path) -> RunPaths:
    return RunPaths(folder / "loras", folder / "runs", folder / "cache", "cpu")


@pytest.mark.parametrize("case", CASES)
def test_three_steps_in_two_sittings_equal_three_in_one(case: str, checkpoint: Callable[[str], Path],
                                                        pictures: TrainingSet, tmp_path: Path) -> None:
    kind, config = CASES[case]
    model = open_model(checkpoint(kind), prediction_type=MODELS[kind][2])
    whole = load_file(train("whole", model, pictures, config, place(tmp_path), Progress()).lora)
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(Interrupted):
        train("cut", model, pictures, config, place(tmp_path), After(2))
    report = train("cut", model, pictures, config, place(tmp_path), Progress())
    assert (report.result.step, report.result.status) == (3, "complete")
    resumed = load_file(report.lora)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[key], tensor) for key, tensor in whole.items())
    text = set()
    if config.lora.train_text_encoder:
        text = {"lora_te1", "lora_te2"} if kind == "sdxl" else {"lora_te"}
    for prefix in {"lora_unet", *text}:
        ups = [tensor for key, tensor in whole.items() if key.startswith(prefix + "_") and "lora_up" in key]
        assert sum(bool(tensor.any()) for tensor in ups) >= len(ups) / 2, f"{prefix} learnt nothing"
    assert {key.split("_text_model")[0] for key in whole if "text_model" in key} == text


def test_the_prediction_type_decides_what_is_learnt(checkpoint: Callable[[str], Path], pictures: TrainingSet,
                                                    tmp_path: Path) -> None:
    """The same weights, taken once for an epsilon model and once for a v-prediction model."""
    seen = {}
    named = {"epsilon": ("stable-diffusion-v2-512/lora", "False"),
             "v_prediction": ("stable-diffusion-v2-768-v/lora", "True")}
    for stated in named:
        model = open_model(checkpoint("sd2"), prediction_type=stated)
        report = train(stated, model, pictures, CONFIG, place(tmp_path), Progress())
        seen[stated] = (report.result.history.losses[0], load_file(report.lora))
        header = read_metadata(report.lora)
        assert (header["modelspec.architecture"], header["ss_v_parameterization"]) == named[stated]
        assert header["modelspec.prediction_type"] == stated
    (epsilon, first), (velocity, second) = seen.values()
    assert epsilon != velocity
    assert not all(torch.equal(first[key], second[key]) for key in first)


def test_the_first_loss_is_that_of_diffusers_own_arithmetic(checkpoint: Callable[[str], Path], pictures: TrainingSet,
                                                            tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SD2 v-prediction: noised and compared as diffusers' scheduler does it, from what the UNet was given."""
    state = load_file(checkpoint("sd2-v"))
    state["first_stage_model.quant_conv.bias"][4:] = -40  # the log variance: latents are the posterior's mean
    save_file(state, tmp_path / "sharp.safetensors")
    model = open_model(tmp_path / "sharp.safetensors", prediction_type="v_prediction")
    calls = watch_unet(monkeypatch)
    config = CONFIG.override(dict(steps=1, caption_dropout=0.0))
    report = train("one", model, pictures, config, place(tmp_path), Progress())
    (noisy, t, _), _, out = calls[0]
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                              prediction_type="v_prediction")
    level = scheduler.alphas_cumprod[t]
    losses = []
    encoded = encode(pictures, model, tmp_path / "cache", device="cpu", dtype=torch.float32, batch_size=4,
                     progress=Progress())
    for index in range(3):
        # From the latents and what was fed in, the noise follows.
        latents = encoded.moments(index, False)[0][None]
        noise = (noisy - level.sqrt() * latents) / (1 - level).sqrt()
        losses.append(float((out - scheduler.get_velocity(latents, noise, t)).square().mean()))
    assert min(abs(loss - report.result.history.losses[0]) / loss for loss in losses) < 1e-3


def watch_unet(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """From now on every call of a trained UNet is noted: positional arguments, named ones, result."""
    calls: list[Any] = []

    def load(*args: Any, **kwargs: Any) -> Any:
        unet: Any = load_unet(*args, **kwargs)
        unet.register_forward_hook(lambda _, given, named, out: calls.append((given, named, out[0].detach())),
                                   with_kwargs=True)
        return unet

    monkeypatch.setattr(trainable_module, "load_unet", load)
    return calls


@pytest.mark.parametrize("config", [CONFIG, WITH_TEXT], ids=["cached", "text trained"])
def test_sdxl_gets_both_texts_the_pooled_one_and_sizes(config: TrainRequest, checkpoint: Callable[[str], Path],
                                                       tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pictures(tmp_path / "pictures", [(150, 100)])
    data = read_folder(folder, FolderOptions(resolution=Resolution(64, Crop.CENTER)))
    calls = watch_unet(monkeypatch)
    config = config.override(dict(steps=1, caption_dropout=0.0))
    train("one", open_model(checkpoint("sdxl")), data, config, place(tmp_path), Progress())
    (_, _, embeds), named, _ = calls[0]
    to_folder(checkpoint("sdxl"), tmp_path / "folder")
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "folder", torch_dtype=torch.float32)
    theirs, _, pooled, _ = pipe.encode_prompt("a fox, red, seen 0", device="cpu", do_classifier_free_guidance=False)
    torch.testing.assert_close(embeds, theirs.float(), rtol=1e-4, atol=1e-4)
    added = named["added_cond_kwargs"]
    torch.testing.assert_close(added["text_embeds"], pooled.float(), rtol=1e-4, atol=1e-4)
    # Height and width of the file, then the crop's corner after scaling to 96 x 64, then what is trained on.
    assert added["time_ids"].tolist() == [[100, 150, 0, 16, 64, 64]]
    assert added["time_ids"].dtype == torch.float32


def test_a_mirrored_picture_has_the_mirrored_crop(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    picture = Image.new("RGB", (303, 200), "grey")
    picture.paste(noise_picture(120, 200), (0, 0))  # what there is to see is on the left
    (tmp_path / "pictures").mkdir()
    picture.save(tmp_path / "pictures" / "p.png")
    options = FolderOptions(resolution=Resolution(64, Crop.FOCAL), captions=CaptionSource.FIXED, text="a fox")
    data = replace(read_folder(tmp_path / "pictures", options), flip=True)
    encoded = encode(data, open_model(checkpoint("sdxl")), tmp_path / "cache", device="cpu", dtype=torch.bfloat16,
                     batch_size=1, progress=Progress())
    source = BatchLoader(encoded, torch.device("cpu"), torch.bfloat16, prior_weight=1.0, cached_text=True)
    ids = [source((SampleUse(0, flip=flip),)).conditions[0]["time_ids"] for flip in (False, True)]
    # Scaled to 97 x 64, of which 33 columns on the right are cut, or mirrored on the left. In bfloat16 there is no 303.
    assert [i.tolist() for i in ids if i is not None] == [[200, 303, 0, 0, 64, 64], [200, 303, 0, 33, 64, 64]]


def test_the_published_recipe_runs_on_sd_turbo_as_it_stands(checkpoint: Callable[[str], Path], pictures: TrainingSet,
                                                            tmp_path: Path) -> None:
    config = build_request("reference recipe")
    model = open_model(checkpoint("sd-turbo"))
    assert (model.family, model.prediction_type) == ("sd2", "epsilon")
    report = train("turbo", model, pictures, config, place(tmp_path), Progress())
    assert report.result.status in ("complete", "stopped early")
    assert report.result.step <= 90
    state = load_file(report.lora)
    assert {float(value) for key, value in state.items() if key.endswith(".alpha")} == {16.0}
    assert all(value.shape[0] == 8 for key, value in state.items() if "lora_down" in key)
    assert {key.rsplit("_attn", 1)[1].split(".")[0][2:] for key in state} == {"to_q", "to_k", "to_v", "to_out_0"}


@pytest.mark.parametrize(("write", "why"), [
    (lambda path: write_x4_upscaler(path, shape="tiny"), "7 channels: an upscaling model"),
    (lambda path: write_sdxl_refiner(path, shape="tiny"), "refiner")])
def test_what_cannot_be_trained_is_refused_by_name(write: Callable[[Path], Path], why: str, pictures: TrainingSet,
                                                   tmp_path: Path) -> None:
    model = open_model(write(tmp_path / "model.safetensors"))
    with pytest.raises(AtelierError, match=why):
        train("x", model, pictures, CONFIG, place(tmp_path), Progress())
    assert not any((tmp_path / name).exists() for name in ("loras", "runs", "cache"))


@pytest.mark.parametrize("factor", [1, 3e4])
def test_sdxls_vae_never_computes_in_float16(checkpoint: Callable[[str], Path], pictures: TrainingSet, tmp_path: Path,
                                             factor: float, caplog: pytest.LogCaptureFixture) -> None:
    """Activations past 65504, as the published VAE has them, leave no trace in float16 training."""
    state = load_file(checkpoint("sdxl"))
    for name in ("weight", "bias"):
        key = f"first_stage_model.encoder.conv_in.{name}"
        state[key] = state[key].float() * factor
    save_file(state, tmp_path / "hot.safetensors")
    model = open_model(tmp_path / "hot.safetensors")
    half, full = (encode(pictures, model, tmp_path / "cache", device="cpu", dtype=dtype, batch_size=4,
                         progress=Progress()) for dtype in (torch.float16, torch.float32))
    for index in range(3):
        assert all(torch.equal(a, b) and a.isfinite().all()
                   for a, b in zip(half.moments(index, False), full.moments(index, False), strict=True))
    assert "overflow" not in caplog.text


def test_sdxl_trains_in_float16(checkpoint: Callable[[str], Path], pictures: TrainingSet, tmp_path: Path) -> None:
    config = CONFIG.override(dict(precision="fp16", learning_rate=1e-3))
    report = train("half", open_model(checkpoint("sdxl")), pictures, config, place(tmp_path), Progress())
    assert report.result.precision == "float16"
    state = load_file(report.lora)
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert any(tensor.any() for key, tensor in state.items() if "lora_up" in key)
