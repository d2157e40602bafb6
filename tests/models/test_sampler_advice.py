"""Every kind of model gets the sampler settings its makers publish, in the converter's report and from inspect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kit.checkpoints import write_sd1, write_sd2, write_sdxl, write_sdxl_refiner

from atelier.convert import ConvertOptions, to_folder
from atelier.models.inspect import inspect
from atelier.models.kinds import KINDS, kind_of

Expected = tuple[str, str, int, float, int]
CASES: dict[str, tuple[Callable[..., Path], dict[str, Any], str, Expected]] = {
    "v1-5-pruned-emaonly": (write_sd1, {}, "sd1", ("dpmpp_2m", "karras", 25, 7.0, 512)),
    "sd-v1-5-inpainting": (write_sd1, {"in_channels": 9}, "sd1-inpainting", ("dpmpp_2m", "karras", 25, 7.0, 512)),
    "v2-1_512": (write_sd2, {}, "sd2", ("dpmpp_2m", "karras", 25, 7.0, 512)),
    "sd_turbo": (write_sd2, {}, "sd-turbo", ("euler_ancestral", "sgm_uniform", 1, 1.0, 512)),
    "512-inpainting-ema": (write_sd2, {"in_channels": 9}, "sd2-inpainting", ("dpmpp_2m", "karras", 25, 7.0, 512)),
    "sd_xl_base_1.0": (write_sdxl, {}, "sdxl", ("dpmpp_2m", "karras", 30, 7.0, 1024)),
    "vpred_xl": (write_sdxl, {"v_prediction": True}, "sdxl-v", ("euler", "normal", 28, 5.0, 1024)),
    "sd_xl_turbo_1.0_fp16": (write_sdxl, {}, "sdxl-turbo", ("euler_ancestral", "sgm_uniform", 1, 1.0, 512)),
    "sdxl_lightning_2step": (write_sdxl, {}, "sdxl-lightning-2", ("euler", "sgm_uniform", 2, 1.0, 1024)),
    "sdxl_lightning_4step": (write_sdxl, {}, "sdxl-lightning-4", ("euler", "sgm_uniform", 4, 1.0, 1024)),
    "sdxl_lightning_8step": (write_sdxl, {}, "sdxl-lightning-8", ("euler", "sgm_uniform", 8, 1.0, 1024)),
    "sd_xl_base_1.0_inpainting": (write_sdxl, {"in_channels": 9}, "sdxl-inpainting",
                                  ("dpmpp_2m", "karras", 30, 7.0, 1024)),
    "sd_xl_refiner_1.0": (write_sdxl_refiner, {}, "sdxl-refiner", ("dpmpp_2m", "karras", 30, 7.0, 1024)),
}


@pytest.mark.parametrize("name", CASES)
def test_report_and_inspection_advise_what_suits_the_model(name: str, tmp_path: Path) -> None:
    write, options, kind, (sampler, scheduler, steps, cfg, size) = CASES[name]
    path = write(tmp_path / f"{name}.safetensors", shape="tiny", **options)
    report, found = to_folder(path, tmp_path / "folder"), inspect(path)
    said = f"sampler {sampler}, scheduler {scheduler}, {steps} steps, cfg {cfg:g}, {size} x {size}"
    assert found.kind == kind
    assert said in found.text() and said in report.text()
    assert report.advice == found.advice
    assert found.name in report.text() and found.prediction_type in report.text()


def test_sd2_at_768_is_advised_once_it_is_known_to_predict_velocity(tmp_path: Path) -> None:
    path = write_sd2(tmp_path / "v2-1_768.safetensors", shape="tiny")
    report = to_folder(path, tmp_path / "folder", ConvertOptions(prediction_type="v_prediction"))
    assert "Sample with: sampler dpmpp_2m, scheduler karras, 25 steps, cfg 7, 768 x 768" in report.text()
    assert inspect(tmp_path / "folder").kind == "sd2-v"


@pytest.mark.parametrize(("family", "name", "sampler", "steps", "cfg", "size"), [
    ("sdxl", "dreamshaperXL_lightningDPMSDE", "dpmpp_sde", 6, 2.0, 1024),
    ("sdxl", "juggernautXL_v9Rdphoto2Lightning", "dpmpp_sde", 6, 2.0, 1024),
    ("sdxl", "dreamshaperXL_v21TurboDPMSDE", "dpmpp_sde", 6, 2.0, 1024),
    ("sdxl", "turbovisionxlSuperFastXL_tvxlV431Bakedvae", "dpmpp_sde", 6, 2.0, 1024),
    ("sdxl", "sdxl-turbo", "euler_ancestral", 1, 1.0, 512),
    ("sdxl", "base Hyper-SDXL-8steps-lora", "euler", 8, 1.0, 1024),
    ("sdxl", "dmd2_sdxl_4step_unet_fp16", "lcm", 4, 1.0, 1024),
    ("sdxl", "lcm-lora-sdxl", "lcm", 6, 1.5, 1024),
    ("sd1", "realisticVisionV60B1_v51HyperVAE", "dpmpp_sde", 6, 2.0, 512),
    ("sd1", "DreamShaper8_LCM", "lcm", 6, 1.5, 512),
    # Names that only look like it.
    ("sdxl", "hyperRealismXL_v2", "dpmpp_2m", 30, 7.0, 1024), ("sd1", "calcmix", "dpmpp_2m", 25, 7.0, 512),
    ("sd1", "hyperion_v1", "dpmpp_2m", 25, 7.0, 512),
])
def test_merges_of_distilled_models_are_known_by_their_usual_names(family: str, name: str, sampler: str, steps: int,
                                                                   cfg: float, size: int) -> None:
    advice = kind_of(family, "epsilon", f"{name}.safetensors").advice
    assert (advice.sampler, advice.steps, advice.cfg, advice.size) == (sampler, steps, cfg, size)


def test_a_folder_of_the_hubs_cache_is_known_by_its_repository(tmp_path: Path) -> None:
    root = tmp_path / "models--stabilityai--sdxl-turbo"
    snapshot = root / "snapshots" / "4d50f6b2"
    to_folder(write_sdxl(tmp_path / "model.safetensors", shape="tiny"), snapshot)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("4d50f6b2")
    (root / "snapshots" / "newer").mkdir()
    found = inspect(root)
    assert (found.kind, found.path) == ("sdxl-turbo", snapshot)


@pytest.mark.parametrize(("line", "predicted"), [('    parameterization: "v"', "v_prediction"),
                                                 ("parameterization: v  # 768", "v_prediction"),
                                                 ("    parameterization: eps", "epsilon"), ("x: 1", "epsilon")])
def test_the_configuration_beside_a_checkpoint_says_what_it_predicts(line: str, predicted: str, tmp_path: Path) -> None:
    path = write_sd1(tmp_path / "model.v2.safetensors", shape="tiny")
    (tmp_path / "model.v2.yaml").write_text(f"model:\n  target: ldm.LatentDiffusion\n  params:\n{line}\n")
    found = inspect(path)
    assert found.prediction_type == predicted
    assert ("model.v2.yaml" in found.text()) == ("param" in line)


@pytest.mark.parametrize(("content", "predicted"), [
    (b"parameterization: v\n# \xff", "epsilon"), (b"parameterization: v\n" + b"#" * 2**20, "epsilon"),
    (b"parameterization: v\n" + b"#" * (2**20 - 20), "v_prediction"),
], ids=["not UTF-8", "too large", "as large as allowed"])
def test_a_configuration_that_cannot_be_read_is_passed_by(content: bytes, predicted: str, tmp_path: Path) -> None:
    """It is a hint of some other program's; the model beside it can be used all the same."""
    path = write_sd1(tmp_path / "model.safetensors", shape="tiny")
    (tmp_path / "model.yaml").write_bytes(content)
    assert inspect(path).prediction_type == predicted


@pytest.mark.host
def test_the_host_knows_every_sampler_and_scheduler_by_that_name(pack: ModuleType) -> None:
    from comfy.samplers import KSampler  # pyright: ignore[reportMissingImports]

    assert {kind.advice.sampler for kind in KINDS} <= set(KSampler.SAMPLERS)
    assert {kind.advice.scheduler for kind in KINDS} <= set(KSampler.SCHEDULERS)
