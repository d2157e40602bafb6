"""What `train --log` writes of a training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from kit.checkpoints import write_sd1
from kit.pictures import write_pictures
from kit.shell import shell

from atelier.shell.trackers import JsonLines


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_sd1(tmp_path / "tiny.safetensors", "tiny")
    write_pictures(tmp_path / "pictures", [(64, 64)])
    path = tmp_path / "train.toml"
    path.write_text("""
        name = "animals/fox"
        model = "tiny.safetensors"
        steps = 3
        data = { folder = "pictures", resolution = 64 }
        lora = { rank = 4 }
        options = { validate_every = 3, learning_rate = 2e-4 }
    """, encoding="utf-8")
    return path


def test_lines_of_json_hold_every_step_and_the_configuration(capsys: pytest.CaptureFixture[str], config: Path) -> None:
    code, out, said = shell(capsys, "train", config, "--device", "cpu", "--log", "jsonl", "--json")
    assert code == 0, said
    history = json.loads(out)["history"]
    first, *lines = [json.loads(line) for line in
                     (config.parent / "logs" / "animals" / "fox.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (first["config"]["rank"], first["config"]["learning_rate"], first["config"]["steps"]) == (4, 2e-4, 3)
    assert [(line["step"], line["loss"]) for line in lines if "loss" in line] == list(enumerate(history["losses"], 1))
    assert [[line["step"], line["validation_loss"]] for line in lines if "validation_loss" in line] == (
        history["validation"])


def test_a_missing_package_is_named_before_anything_is_trained(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    code, _, said = shell(capsys, "train", config, "--device", "cpu", "--log", "wandb")
    assert code == 1
    assert "pip install wandb" in said
    assert not (config.parent / "runs").exists()


def test_a_tracker_that_cannot_start_is_named_before_anything_is_trained(capsys: pytest.CaptureFixture[str],
                                                                         config: Path) -> None:
    (config.parent / "logs").write_text("a file where the folder should be", encoding="utf-8")
    code, _, said = shell(capsys, "train", config, "--device", "cpu", "--log", "jsonl")
    assert code == 1
    assert "The tracker jsonl could not be started (" in said and "leave out --log" in said
    assert not (config.parent / "runs").exists()


def test_accelerate_is_told_the_file_that_is_written(tmp_path: Path) -> None:
    tracker = JsonLines("animals/fox", tmp_path)
    tracker.start()
    tracker.log({"loss": 0.5}, step=3)
    assert json.loads(tracker.tracker.read_text(encoding="utf-8")) == {"step": 3, "loss": 0.5}
