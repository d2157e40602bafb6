"""LoRAs of every family, trained here, do the same in the host as through diffusers and PEFT.

The host reads the kohya file by its own code; diffusers is given what Convert LoRA makes of that file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from kit.checkpoints import write_sd1, write_sd2, write_sdxl
from kit.host_lora import host_with_loras
from kit.pictures import write_pictures
from kit.training_loop import request
from torch import Tensor

from atelier.dataset.folder import FolderOptions, read_folder
from atelier.dataset.types import Resolution
from atelier.device_memory import free_cache
from atelier.lora.convert import convert_lora
from atelier.lora.file import load_lora
from atelier.lora.merge import merge_into
from atelier.lora.weights import select
from atelier.models.handle import DiffusersModel
from atelier.models.load import load_text, load_unet, load_unet_config
from atelier.models.open import open_model
from atelier.progress import Progress
from atelier.train import mkldnn_prepack
from atelier.train.devices import RunPaths
from atelier.train.request.lora import LoraConfig
from atelier.train.run import train

pytestmark = [pytest.mark.host, pytest.mark.slow]

TEXT = "a fox, red, seen 0"
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Case:
    """One training, and the model that it is done on."""

    name: str
    lora: LoraConfig
    file: str = "model"
    prediction: str = "auto"
    strengths: tuple[float, ...] = (1.0,)


EVERYTHING = LoraConfig(rank=4, alpha=8, targets="attention_ff_conv", train_text_encoder=True)
PLAIN = LoraConfig(rank=4, alpha=8)
FAMILIES: dict[str, tuple[Callable[..., Path], tuple[Case, ...]]] = {
    "sd1": (write_sd1, (Case("all", EVERYTHING, strengths=(1.0, 0.5)),
                        Case("dora", LoraConfig(rank=4, alpha=4, kind="dora"), strengths=(1.0, 0.5)),
                        Case("loha", LoraConfig(rank=4, alpha=4, kind="loha", targets="attention_ff_conv")))),
    "sd1-inpainting": (partial(write_sd1, in_channels=9), (Case("all", EVERYTHING),)),
    "sd2": (write_sd2, (Case("epsilon", EVERYTHING, prediction="epsilon", strengths=(1.0, 0.5)),
                        Case("velocity", PLAIN, prediction="v_prediction"),
                        Case("turbo", PLAIN, file="sd_turbo"))),
    "sdxl": (write_sdxl, (Case("all", EVERYTHING, strengths=(1.0, 0.5)),
                          Case("lokr", LoraConfig(rank=4, alpha=4, kind="lokr", targets="attention_ff_conv")))),
}


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())


def trained(case: Case, checkpoint: Path, folder: Path) -> Path:
    """The kohya file of three steps at a rate that shows."""
    pictures = read_folder(write_pictures(folder / "pictures", [(64, 64)]),
                           FolderOptions(resolution=Resolution(64)))
    rate = 1e-3 if case.lora.kind == "dora" else 3e-3
    options = dict(monitor="off", patience=0, learning_rate=rate, text_learning_rate=rate,
                              schedule="constant", precision="fp32")
    model = open_model(checkpoint, prediction_type=case.prediction)
    place = RunPaths(folder / "loras", folder / "runs", folder / "cache", "cpu")
    return train(case.name, model, pictures, replace(request(options, steps=3), lora=case.lora), place, Progress()).lora


def inputs(family: str, width: int, channels: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the host's UNet is given, and what diffusers' takes besides."""
    given = {"x": torch.randn(1, channels, 8, 12), "t": torch.tensor([401.0]), "context": torch.randn(1, 77, width)}
    if family != "sdxl":
        return given, {}
    ids, pooled = torch.tensor([[1024.0, 768, 0, 16, 1024, 1024]]), torch.randn(1, 1280)
    angles = ids.flatten()[:, None] * torch.exp(-math.log(10000) * torch.arange(128) / 128)
    given["y"] = torch.cat([pooled, torch.cat([angles.cos(), angles.sin()], dim=1).reshape(1, -1)], dim=1)
    return given, {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}


def must_be_merged(path: Path, strength: float) -> bool:
    """diffusers reads no LyCORIS. PEFT scales what is inside DoRA's norm; the host goes part of the way between
    weights, as merging does."""
    return path.stem in ("loha", "lokr") or (path.stem == "dora" and strength != 1)


def merged_unet(model: DiffusersModel, path: Path, strength: float) -> Any:
    unet = load_unet(model)
    merge_into(unet, select(load_lora(path), "unet"), strength)
    return unet


def by_diffusers(family: str, checkpoint: Path, runs: list[tuple[Path, float]], tmp_path: Path
                 ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """What the UNet is given, and the outputs of diffusers without a LoRA and with each at its strength."""
    model = open_model(checkpoint)
    text, config = load_text(model), load_unet_config(model)
    given, extra = inputs(family, config["cross_attention_dim"], config["in_channels"])

    def ours(unet: Any) -> dict[str, Tensor]:
        with torch.inference_mode():
            batch = text.encode([TEXT])
            made = {"unet": unet(given["x"], given["t"], given["context"], **extra).sample, "embeds": batch.embeds}
        return made if batch.pooled is None else {**made, "pooled": batch.pooled}

    # First, so that one UNet at a time is in memory.
    merged = {number: ours(merged_unet(model, *run)) for number, run in enumerate(runs) if must_be_merged(*run)}
    unet = load_unet(model)
    parts: dict[str, Any] = {"unet": unet, **text.encoders, "vae": None,
                             "scheduler": DDIMScheduler(steps_offset=1, clip_sample=False),
                             **{name.replace("text_encoder", "tokenizer"): t for name, t in text.tokenizers.items()}}
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    rest = {} if family == "sdxl" else {"safety_checker": None, "feature_extractor": None,
                                        "requires_safety_checker": False}
    pipe: Any = kind(**parts, **rest)
    expected = [ours(unet)]
    for number, (path, strength) in enumerate(runs):
        if number in merged:
            expected.append(merged[number])
            continue
        format = convert_lora(path, tmp_path / f"{number}.safetensors", "diffusers")
        pipe.load_lora_weights(str(tmp_path), weight_name=format.destination.name, adapter_name="x")
        pipe.set_adapters("x", strength)
        expected.append(ours(unet))
        pipe.unload_lora_weights()
    assert all(torch.equal(value, expected[0][name]) for name, value in ours(unet).items())
    return given, expected


@pytest.mark.parametrize("family", FAMILIES)
def test_trained_loras_mean_the_same_in_the_host_and_in_diffusers(family: str, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mkldnn_prepack, "MEMORY_SHARE", 0.0)  # for three steps not worth twice the UNet's memory
    write, cases = FAMILIES[family]
    checkpoint = write(tmp_path / "model.safetensors")
    (tmp_path / "sd_turbo.safetensors").hardlink_to(checkpoint)
    files = {case.name: trained(case, tmp_path / f"{case.file}.safetensors", tmp_path) for case in cases}
    runs = [(files[case.name], strength) for case in cases for strength in case.strengths]
    given, expected = by_diffusers(family, checkpoint, runs, tmp_path)
    free_cache(torch.device("cpu"))  # the host's process needs as much again
    found = host_with_loras(checkpoint, runs, given, TEXT, tmp_path)
    for number, (diffusers, host) in enumerate(zip(expected, found, strict=True)):
        label = (family, "base" if not number else (runs[number - 1][0].stem, runs[number - 1][1]))
        for name, value in diffusers.items():
            assert relative(value, host[name]) < TOLERANCE, (label, name)
        if number:
            assert relative(diffusers["unet"], expected[0]["unet"]) > 5 * TOLERANCE, (label, "no visible effect")
    texts = [number for number, (path, _) in enumerate(runs, 1) if path.stem in ("all", "epsilon")]
    for number in texts:
        assert relative(found[number]["embeds"], found[0]["embeds"]) > 10 * TOLERANCE, "the text encoder's part is lost"
