"""Whole runs on a small model of the host's: it learns, resumes, is interrupted, draws, and is given back."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.host_families import Opened, open_small
from kit.pictures import write_pictures
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

pytestmark = pytest.mark.host

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220), "white": (240, 240, 240)}


@pytest.fixture
def opened(pack: ModuleType, tmp_path: Path) -> Opened:
    return open_small(pack, "flux", tmp_path)


def pictures(folder: Path) -> Path:
    """Four pictures of one colour each, with its name as caption."""
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (64, 64), colour).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(name, encoding="utf-8")
    return folder


class Runs:
    """Trains in folders of its own."""

    def __init__(self, opened: Opened, folder: Path, source: Path, trigger: str = "") -> None:
        self.opened, self.folder = opened, folder
        self.progress: Any = opened.module("atelier.progress").Progress
        types = opened.module("atelier.dataset.types")
        read = opened.module("atelier.dataset.folder")
        self.data = read.read_folder(source, read.FolderOptions(resolution=types.Resolution(64), trigger=trigger))

    def train(self, name: str, request: Any, progress: Any = None) -> Any:
        devices = self.opened.module("atelier.train.devices")
        paths = devices.RunPaths(self.folder / "loras", self.folder / "runs", self.folder / "cache", "cpu")
        with self.opened.module("nodes.host.device").exclusive_device():
            return self.opened.module("atelier.train.run").train(name, self.opened.host, self.data, request, paths,
                                                                 progress or self.progress())


def test_a_small_flow_model_learns_four_pictures(pack: ModuleType, tmp_path: Path) -> None:
    opened = open_small(pack, "settled flux", tmp_path)
    runs = Runs(opened, tmp_path, pictures(tmp_path / "pictures"))
    request = opened.request(steps=150, learning_rate=3e-3, batch_size=4, targets="all_linear", rank=16, alpha=16,
                             precision="fp32", validation_pictures=4, patience=0, validate_every=10,
                             sample_prompt="red", sample_steps=8, sample_cfg=1.0, sample_every=149)
    frozen = {name: tensor.clone() for name, tensor in opened.patcher.model.state_dict().items()}
    report = runs.train("colours", request)
    assert "min_snr_gamma" not in report.text()
    history = report.result.history
    assert sum(history.losses[-20:]) < 0.4 * sum(history.losses[:20])
    assert history.validation[-1][1] < 0.4 * history.validation[0][1], history.validation
    shown = Image.open(report.folder.samples[-1]).convert("RGB").resize((1, 1)).getpixel((0, 0))
    distance = {name: sum((a - b) ** 2 for a, b in zip(shown, colour, strict=True)) for name, colour in COLOURS.items()}
    assert min(distance, key=lambda name: distance[name]) == "red", (shown, distance)
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in opened.patcher.model.state_dict().items())
    with safe_open(report.lora, "pt") as file:
        header = file.metadata()
    assert header["ss_base_model_version"] == "flux"
    assert header["modelspec.architecture"] == "flux-1-dev/lora"
    assert header["ss_sd_model_hash"] == opened.host.weights
    assert json.loads(header["atelier.config"])["levels"]["level_shift"] == "model"


def test_an_interrupted_run_resumes_bit_for_bit_and_encodes_nothing_twice(opened: Opened, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "pictures", [(64, 64)] * 3)
    request = opened.request(steps=6, learning_rate=1e-3, precision="fp32", monitor="off", patience=0,
                             preservation_class="dog")
    whole = Runs(opened, tmp_path / "whole", source, "fox").train("lora", request)
    assert {f"a {kind}, red, seen 0" for kind in ("fox", "dog")} < set(opened.clip.encoded)
    runs = Runs(opened, tmp_path / "parts", source, "fox")
    interrupted = opened.module("atelier.progress").Interrupted

    class After(runs.progress):
        done = 0

        def measure(self, values: Any) -> None:
            self.done = int(values["step"])

        def check(self) -> None:
            if self.done >= 3:
                raise interrupted

    with pytest.raises(interrupted):
        runs.train("lora", request, After())
    assert list((tmp_path / "parts" / "loras").rglob("*.safetensors"))  # what was learnt so far is there
    before = len(opened.clip.encoded)
    resumed = runs.train("lora", request)
    assert len(opened.clip.encoded) == before
    expected, found = load_file(whole.lora), load_file(resumed.lora)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_another_text_encoder_or_guidance_is_another_run(opened: Opened) -> None:
    from dataclasses import replace

    names = [dict(model.identity()) for model in (
        opened.host, replace(opened.host, text="other"), replace(opened.host, guidance=1.0),
        replace(opened.host, weights="other"))]
    assert len({json.dumps(name, sort_keys=True) for name in names}) == 4


def sampled(opened: Opened) -> torch.Tensor:
    """What core's KSampler makes of the MODEL that came in."""
    import comfy.sample

    found = opened.clip.encode_from_tokens("a fox", return_pooled=True, return_dict=True)
    conditioning = [[found["cond"], {"pooled_output": found["pooled_output"]}]]
    noise = torch.randn(1, *opened.latents, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return comfy.sample.sample(opened.patcher, noise, 2, 1.0, "euler", "simple", conditioning, conditioning,
                                   torch.zeros_like(noise), disable_pbar=True, seed=1)


def test_ten_runs_leave_as_much_memory_as_one_and_the_model_as_it_was(pack: ModuleType, tmp_path: Path,
                                                                      request: pytest.FixtureRequest) -> None:
    import psutil

    opened = open_small(pack, "large flux", tmp_path)
    network = sum(parameter.nbytes for parameter in opened.patcher.model.parameters())
    assert network > 30e6  # so large that one left behind would stand out from an allocator's noise
    runs = Runs(opened, tmp_path, write_pictures(tmp_path / "pictures", [(64, 64)] * 2))
    before = sampled(opened)
    request.addfinalizer(gc.unfreeze)
    gc.freeze()  # what is there already need not be looked through each time
    tensors, resident = [], []
    for seed in range(10):
        runs.train(f"lora{seed}", opened.request(steps=1, seed=seed, monitor="off", patience=0, precision="fp32",
                                                 sample_prompt="a fox", sample_steps=1))
        if seed in (0, 9):
            gc.collect()
            kept = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
                    for tensor in gc.get_objects() if isinstance(tensor, torch.Tensor)}
            tensors.append(sum(kept.values()))
            resident.append(psutil.Process().memory_info().rss)
    assert tensors[1] <= tensors[0] + 100_000, tensors
    assert resident[1] <= resident[0] + network, (resident, network)
    assert torch.equal(sampled(opened), before)


def test_a_step_that_does_not_fit_is_done_again_with_checkpointing(opened: Opened, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_pictures(tmp_path / "pictures", [(64, 64)] * 2)
    request = opened.request(steps=3, learning_rate=1e-3, precision="fp32", monitor="off", patience=0)
    plain = Runs(opened, tmp_path / "plain", source).train("lora", request)
    assert not plain.result.gradient_checkpointing
    trainer = opened.module("atelier.train.trainer").Trainer
    step, tried, redone = trainer.train_step, [], []
    redo = torch.utils.checkpoint.checkpoint

    def counted(*args: Any, **options: Any) -> Any:
        redone.append(tried[-1])
        return redo(*args, **options)

    def full_once(self: Any, number: int, scale: Any) -> Any:
        tried.append(number)
        if tried == [0, 1]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(self, number, scale)

    monkeypatch.setattr(trainer, "train_step", full_once)
    monkeypatch.setattr(opened.module("atelier.train.foreign_forward"), "checkpoint", counted)
    saved = Runs(opened, tmp_path / "saved", source).train("lora", request)
    assert tried == [0, 1, 1, 2] and set(redone) == {1, 2}
    assert saved.result.gradient_checkpointing
    expected, found = load_file(plain.lora), load_file(saved.lora)
    assert all(torch.allclose(found[key], tensor, atol=1e-5) for key, tensor in expected.items())


def test_a_regular_expression_chooses_the_layers(opened: Opened) -> None:
    request = opened.request(target_pattern=r"(double|single)_blocks\.1\.(img_attn\.proj|linear2)")
    adapters = opened.adapters(opened.denoiser(request), request)
    assert set(adapters.weights()) == {"diffusion_model.double_blocks.1.img_attn.proj",
                                       "diffusion_model.single_blocks.1.linear2"}
    unmatched = opened.request(target_pattern="blocks")
    with pytest.raises(opened.module("atelier.errors").AtelierError, match="matches the targets 'blocks'"):
        opened.denoiser(unmatched)


def test_the_report_says_what_a_flow_model_has_no_use_for(opened: Opened, tmp_path: Path) -> None:
    runs = Runs(opened, tmp_path, write_pictures(tmp_path / "pictures", [(64, 64)] * 2))
    report = runs.train("lora", opened.request(steps=1, min_snr_gamma=5.0, monitor="off", patience=0))
    assert "min_snr_gamma was not used" in report.text()


@pytest.mark.parametrize(("option", "value", "said"), [("train_text_encoder", True, "text encoder"),
                                                      ("batch_size", 0, "batch_size is 0"),
                                                      ("compile", "on", "compiled")])
def test_what_the_hosts_models_cannot_do_is_said_before_the_first_step(opened: Opened, tmp_path: Path, option: str,
                                                                       value: object, said: str) -> None:
    runs = Runs(opened, tmp_path, write_pictures(tmp_path / "pictures", [(64, 64)] * 2))
    with pytest.raises(opened.module("atelier.errors").AtelierError, match=said):
        runs.train("lora", opened.request(steps=1, **{option: value}))
