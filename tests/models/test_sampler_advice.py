"""Every kind of model gets the sampler settings its makers publish, in the converter's report and from inspect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kit.checkpoints import write_sd1, write_sd2, write_sdxl, write_sdxl_refiner

from atelier.convert import ConvertOptions, to_folder
from atelier.models.families import KINDS
from atelier.models.inspect import inspect

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


@pytest.mark.host
def test_the_host_knows_every_sampler_and_scheduler_by_that_name(pack: ModuleType) -> None:
    from comfy.samplers import KSampler  # pyright: ignore[reportMissingImports]

    assert {kind.advice.sampler for kind in KINDS} <= set(KSampler.SAMPLERS)
    assert {kind.advice.scheduler for kind in KINDS} <= set(KSampler.SCHEDULERS)
