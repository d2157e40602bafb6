"""A whole run by `train`: what is written, found again, kept, and never overwritten."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.pictures import write_pictures
from kit.training_loop import same
from kit.training_run import FOLDER, REQUEST, After, Seen
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import atelier.train.preparation
from atelier.dataset.folder import FolderOptions, read_folder
from atelier.dataset.join import join
from atelier.dataset.types import Crop, Resolution, TrainingSet
from atelier.errors import AtelierError
from atelier.lora.file import read_metadata
from atelier.models.handle import DiffusersModel
from atelier.models.load import load_unet
from atelier.progress import Interrupted
from atelier.train.loss_scale import LossScale
from atelier.train.trainer import StepResult, Trainer


def test_the_file_says_how_it_was_made(run, model: DiffusersModel, pictures: TrainingSet) -> None:
    report = run()
    state = load_file(report.lora)
    assert all(tensor.isfinite().all() for tensor in state.values())
    ups = [tensor for name, tensor in state.items() if name.endswith("lora_up.weight")]
    assert len(ups) == len(state) / 3  # up, down and alpha of each layer
    assert all(tensor.abs().sum() > 0 for tensor in ups)
    assert {float(tensor) for name, tensor in state.items() if name.endswith(".alpha")} == {8.0}
    with safe_open(str(report.lora), "pt") as file:
        header = file.metadata()
    assert header["ss_output_name"] == header["modelspec.title"] == "fox"
    assert header["ss_sd_model_hash"] == model.fingerprint
    assert header["atelier.training_set"] == pictures.digest
    assert (header["ss_network_dim"], header["ss_network_alpha"], header["ss_steps"]) == ("4", "8.0", "3")
    assert json.loads(header["atelier.config"])["lora"]["rank"] == 4
    assert json.loads(header["ss_tag_frequency"])["training set"]["a fox"] == 3


def test_a_finished_run_is_reused_and_its_file_restored(run) -> None:
    first = run()
    again = After(0)
    second = run(progress=again)
    assert (first.reused, second.reused) == (False, True)
    assert second.lora == first.lora
    assert again.phases == []
    content = first.lora.read_bytes()
    first.lora.unlink()
    assert run().lora.read_bytes() == content
    other = run(name="folder/renamed")
    assert other.reused
    assert load_file(other.lora).keys() == load_file(first.lora).keys()


def test_a_finished_run_leaves_the_device_to_others(run) -> None:
    """What a host unloads for a training, it keeps when there is none."""
    entered: list[str] = []

    @contextmanager
    def exclusive() -> Iterator[None]:
        entered.append("in")
        yield
        entered.append("out")

    assert not run(exclusive=exclusive).reused and entered == ["in", "out"]
    assert run(exclusive=exclusive).reused and entered == ["in", "out"]


def test_another_request_trains_anew_and_overwrites_nothing(run, tmp_path: Path) -> None:
    first = run()
    content = first.lora.read_bytes()
    folder = write_pictures(tmp_path / "changed", [(80, 64), (64, 64), (70, 90)])
    (folder / "p1.txt").write_text("a badger", encoding="utf-8")
    second = run(data=read_folder(folder, FOLDER))
    third = run(request=replace(REQUEST, seed=1))
    assert [report.lora.name for report in (first, second, third)] == [
        "fox.safetensors", "fox-2.safetensors", "fox-3.safetensors"]
    assert not second.reused
    assert not third.reused
    assert first.lora.read_bytes() == content


def test_other_runs_files_survive_the_end_of_a_run(run, tmp_path: Path) -> None:
    """A finished LoRA whose name ends in -partial, what a cancelled run of the same name learnt, a cut download."""
    kept = [run("fox-partial").lora]
    with pytest.raises(Interrupted):
        run("fox", replace(REQUEST, seed=11, steps=50), progress=After(2))
    kept += [path for path in (tmp_path / "loras").iterdir() if path not in kept]
    kept.append(tmp_path / "loras" / "fox.safetensors")
    kept[-1].write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    before = [path.read_bytes() for path in kept]
    with pytest.raises(Interrupted):
        run("fox", replace(REQUEST, seed=12), progress=After(2))
    assert len(list((tmp_path / "loras").iterdir())) == 4
    finished = run("fox", replace(REQUEST, seed=12)).lora
    assert finished.name == "fox-2.safetensors"
    assert len(kept) == 3 and [path.read_bytes() for path in kept] == before
    assert set((tmp_path / "loras").iterdir()) == {*kept, finished}


@pytest.mark.parametrize("report", ["{}", "[]", '{"history": []}', '{"history": {"losses": 1}}', None])
def test_a_run_whose_report_or_result_is_gone_is_trained_again(run, report: str | None) -> None:
    first = run()
    content = first.lora.read_bytes()
    if report is None:
        (first.folder.path / first.result.weights).unlink()
    else:
        first.folder.report.write_text(report, encoding="utf-8")
    with pytest.raises(Interrupted):
        run(progress=After(2))
    again = run()
    assert (again.reused, again.result.step, again.lora) == (False, 3, first.lora)
    assert again.lora.read_bytes() == content
    assert run().reused


def test_an_interrupted_run_leaves_a_lora_and_goes_on_exactly(run, tmp_path: Path) -> None:
    whole = load_file(run("whole", replace(REQUEST, steps=4)).lora)
    for folder in (tmp_path / "runs").iterdir():
        folder.rename(tmp_path / "aside")
    with pytest.raises(Interrupted):
        run("cut", replace(REQUEST, steps=4), progress=After(2))
    assert [path.name for path in (tmp_path / "loras").iterdir() if "cut" in path.name] == ["cut-partial.safetensors"]
    assert any(t.abs().sum() > 0 for n, t in load_file(tmp_path / "loras" / "cut-partial.safetensors").items()
               if "lora_up" in n)
    report = run("cut", replace(REQUEST, steps=4))
    resumed = load_file(report.lora)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    assert not (tmp_path / "loras" / "cut-partial.safetensors").exists()


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_weights(run, tmp_path: Path, monkeypatch) -> None:
    plain = Trainer.train_step

    def breaks(trainer: Trainer, step: int, loss_scale: LossScale) -> StepResult:
        result = plain(trainer, step, loss_scale)
        return StepResult(result.loss * float("nan"), ~result.finite, loss_scale) if step == 2 else result

    monkeypatch.setattr(Trainer, "train_step", breaks)
    with pytest.raises(AtelierError, match=r"(?i)nan|finite"):
        run("broken", replace(REQUEST, steps=6))
    state = load_file(tmp_path / "loras" / "broken-partial.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert not (tmp_path / "loras" / "broken.safetensors").exists()


def test_everything_outside_is_left_as_found(run, model: DiffusersModel) -> None:
    file = model.path.read_bytes()
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), torch.get_default_dtype()
    run(request=REQUEST.override(dict(dropout=0.3)))
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), torch.get_default_dtype()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert model.path.read_bytes() == file


def test_best_and_numbered_checkpoints_samples_and_plot(run) -> None:
    options = dict(monitor="validation", patience=9, validate_every=2, save_every=2,
                   sample_prompt="a fox", sample_every=2, sample_steps=2, sample_cfg=2.0)
    report = run(request=REQUEST.override(dict(options, steps=4)))
    files = {path.name for path in report.folder.path.iterdir()}
    assert {"best.safetensors", "step-000002.safetensors", "step-000004.safetensors"} <= files
    assert report.folder.plot.stat().st_size > 1000
    assert len(report.folder.samples) >= 2
    assert report.result.best_step in (2, 4)
    assert "best loss" in report.text()
    steps = [int(path.stem[-6:]) for path in report.folder.samples]
    assert list(report.folder.drawn) == steps
    seen = Seen()
    report.result.show(seen, report.folder)
    assert seen.pictures == steps, "each when its step was the last one measured"


def test_saved_steps_are_loras_beside_the_finished_one(run, tmp_path: Path) -> None:
    wanted = REQUEST.override(dict(steps=5, save_every=2))
    report = run(request=wanted)
    assert [path.stem for path in report.steps] == ["fox-000002", "fox-000004", "fox"]
    for step, path in report.saved.items():
        assert read_metadata(path)["ss_steps"] == str(step)
        assert same(path, report.folder.at(step)) and not same(path, report.lora)
    report.steps[0].unlink()
    again = run(request=wanted)
    assert again.reused and again.steps == report.steps and report.steps[0].exists()
    last = run("bear", REQUEST.override(dict(steps=4, save_every=2)))
    assert [path.stem for path in last.steps] == ["bear-000002", "bear"], "each of other weights"
    assert run("owl", REQUEST.override(dict(steps=5))).steps == [tmp_path / "loras" / "owl.safetensors"]


def test_the_trained_file_is_the_change_diffusers_applies(run, model: DiffusersModel) -> None:
    """W' = W + (alpha / rank) · B · A, computed here by hand from the written file and by diffusers from the same."""
    report = run()
    state = load_file(report.lora)
    unet = load_unet(model, dtype=torch.float32, device=torch.device("cpu"))
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    key = "lora_unet_" + name.replace(".", "_")
    delta = state[f"{key}.lora_up.weight"].float() @ state[f"{key}.lora_down.weight"].float() * 2
    before = unet.get_submodule(name).weight.detach().clone()
    from diffusers import StableDiffusionPipeline

    converted, alphas = StableDiffusionPipeline.lora_state_dict(state)[:2]
    unet.load_lora_adapter({k: v.float() for k, v in converted.items()}, network_alphas=alphas, prefix="unet")
    unet.fuse_lora()
    assert torch.allclose(unet.get_submodule(name).base_layer.weight, before + delta, atol=1e-6)


def test_samples_of_small_buckets_are_drawn(run, tmp_path: Path) -> None:
    buckets = FolderOptions(resolution=Resolution(64, Crop.BUCKET, bucket_step=8))
    wide = read_folder(write_pictures(tmp_path / "wide", [(100, 60), (110, 66)]), buckets)
    options = dict(sample_prompt="a fox", sample_every=3, sample_steps=1)
    report = run(request=REQUEST.override(options), data=wide)
    with Image.open(report.folder.samples[0]) as picture:
        assert picture.size == (80, 64)


def test_a_sample_without_memory_is_left_out_and_reported(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(vae: object, latents: torch.Tensor) -> list:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("atelier.train.samples.decode", full)
    options = dict(sample_prompt="a fox", sample_every=2, sample_steps=1)
    report = run(request=REQUEST.override(options))
    assert report.result.status == "complete" and report.folder.samples == []
    assert "No memory was left for the sample pictures of the steps 2, 3" in report.text()
    again = run(request=REQUEST.override(options))
    assert again.reused and again.result == report.result


@pytest.mark.parametrize("room", [2, 0])
def test_encoding_goes_on_with_what_fits(run, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    tried: list[int] = []
    plain = atelier.train.preparation.encode

    def narrow(*args: Any, batch_size: int, **options: Any) -> Any:
        tried.append(batch_size)
        if batch_size > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(*args, batch_size=batch_size, **options)

    monkeypatch.setattr("atelier.train.preparation.encode", narrow)
    if room:
        assert run().result.status == "complete" and tried == [4, 2]
        return
    with pytest.raises(AtelierError, match="smaller resolution"):
        run()
    assert tried == [4, 2, 1]


@pytest.mark.parametrize(("size", "batch"), [(64, 4), (512, 4), (704, 2), (768, 1), (1024, 1), (2048, 1)])
def test_larger_pictures_are_encoded_in_smaller_batches(run, pictures: TrainingSet, monkeypatch: pytest.MonkeyPatch,
                                                       size: int, batch: int) -> None:
    def asked(*args: Any, batch_size: int, **options: Any) -> Any:
        assert batch_size == batch
        raise Interrupted

    monkeypatch.setattr("atelier.train.preparation.encode", asked)
    with pytest.raises(Interrupted):
        run(data=replace(pictures, resolution=Resolution(size)))


def test_a_model_that_does_not_fit_says_what_to_do(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("atelier.train.diffusers_trainable.load_unet", full)
    with pytest.raises(AtelierError, match=r"loading the model.*precision"):
        run()


@pytest.mark.parametrize("shades", [(0, 0), (0, 255)])
def test_masks_that_hide_everything_are_refused(run, tmp_path: Path, shades: tuple[int, int]) -> None:
    for index, shade in enumerate(shades):
        Image.new("RGB", (64, 64), (90 * index, 50, 0)).save(tmp_path / f"{index}.png")
        Image.new("L", (64, 64), shade).save(tmp_path / f"{index}-mask.png")
    data = read_folder(tmp_path, replace(FOLDER, captions="fixed", text="a fox"))
    if any(shades):
        assert run(data=data).result.status == "complete"
        return
    with pytest.raises(AtelierError, match="masks hide all of the 2 pictures"):
        run(data=data)


def test_captions_that_are_cut_are_counted(run, pictures: TrainingSet, caplog: pytest.LogCaptureFixture) -> None:
    """75 words of one token fit, 76 do not, and neither do 80 of a single letter."""
    texts = ["fox " * 75, "fox " * 76, "! ? " * 40]
    data = replace(pictures, samples=tuple(replace(sample, captions=(text.strip(),))
                                           for sample, text in zip(pictures.samples, texts, strict=True)))
    with caplog.at_level("WARNING", "atelier"):
        report = run(data=data)
    name = data.samples[1].image.name
    expected = f"2 of 3 pictures have captions of more than 75 tokens; the text encoder takes no more, and the rest " \
               f"is not learnt (first: {name}, 76 tokens)."
    assert report.result.warnings == [expected]
    assert expected in report.text().splitlines()
    assert [record.message for record in caplog.records if record.name == "atelier"] == [expected]
    assert run().result.warnings == []


def test_a_set_of_two_resolutions_is_trained(run, pictures: TrainingSet) -> None:
    both = join([pictures, replace(pictures, resolution=Resolution(96))])
    report = run(data=both)
    assert not report.reused
    with safe_open(str(report.lora), "pt") as file:
        header = file.metadata()
    assert (header["ss_resolution"], header["atelier.training_set"]) == ("(96, 96)", both.digest)


def test_a_run_that_is_interrupted_before_its_first_step_publishes_nothing(run, tmp_path: Path) -> None:
    class AtOnce(After):
        def check(self) -> None:
            if self.phases[-1:] == ["training"]:
                raise Interrupted

    with pytest.raises(Interrupted):
        run(progress=AtOnce(0))
    assert not list(tmp_path.glob("loras/*"))


def test_what_makes_a_run_slower_than_expected_is_said_and_reported(run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="atelier"):
        report = run(request=REQUEST.override({"cuda_graphs": "on", "steps": 1}))
    note = next(sentence for sentence in report.result.warnings if "no CUDA graphs" in sentence)
    assert note in caplog.messages
