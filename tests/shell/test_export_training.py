"""A training taken to another machine is the same training there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit.checkpoints import write_sd1
from kit.pictures import write_pictures
from kit.shell import shell
from kit.training_loop import request
from PIL import Image

from atelier.dataset.folder import FolderOptions, read_folder
from atelier.dataset.join import join
from atelier.dataset.portable import SET_FILE, read_portable, write_portable
from atelier.dataset.types import Resolution, TrainingSet
from atelier.errors import AtelierError
from atelier.models.open import open_model
from atelier.progress import Progress
from atelier.shell.export_training import CONFIG, export_training
from atelier.shell.train_file import read_train_file

REQUEST = request(dict(rank=3, targets="all_linear"), dict(monitor="off", patience=0, learning_rate=3e-4,
                                                            precision="fp32", sample_prompt='a "fox"\n\x7f 狐 \\'),
                  steps=2, seed=2**62)


@pytest.fixture
def pictures(tmp_path: Path) -> TrainingSet:
    """Of two folders and sizes, with a mask, captions of several lines, mirrored uses and a prior picture."""
    prior = write_pictures(tmp_path / "prior", [(64, 64)])
    near, far = write_pictures(tmp_path / "near", [(64, 64), (80, 64)]), write_pictures(tmp_path / "2_far", [(64, 90)])
    Image.new("L", (64, 64), 128).save(near / "p0-mask.png")
    (far / "p0.txt").write_text("ein Fuchs\n狐", encoding="utf-8")
    return join([read_folder(near, FolderOptions(resolution=Resolution(64), trigger="zwx", flip=True, prior=prior)),
                      read_folder(far, FolderOptions(resolution=Resolution(72), caption_lines=True, repeats=3,
                                                   flip=True))])


def test_a_training_set_is_the_same_on_another_machine(pictures: TrainingSet, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    write_portable(pictures, tmp_path / "taken", Progress())
    (tmp_path / "taken").rename(tmp_path / "elsewhere")
    found = read_portable(tmp_path / "elsewhere" / SET_FILE, Progress())
    assert found.digest == pictures.digest
    assert all(sample.image.is_relative_to(tmp_path / "elsewhere") for sample in found.samples)
    own, theirs = ([[one.image.parent == other.image.parent for other in data.samples] for one in data.samples]
                   for data in (pictures, found))
    assert own == theirs, "validation looks at which pictures share a folder"


def test_the_shell_trains_an_export(capsys: pytest.CaptureFixture[str], pictures: TrainingSet, tmp_path: Path) -> None:
    model = open_model(write_sd1(tmp_path / "tiny.safetensors", "tiny"))
    wanted = replace(REQUEST, lora=replace(REQUEST.lora, targets="attention"),
                     samples=replace(REQUEST.samples, sample_prompt=""))
    folder = export_training(tmp_path / "fox", "animals/fox", model, pictures, wanted, Progress())
    shutil.copyfile(model.path, folder / model.path.name)
    code, out, said = shell(capsys, "train", folder / CONFIG, "--device", "cpu", "--json")
    assert code == 0, said
    assert Path(json.loads(out)["lora"]) == folder / "loras" / "animals" / "fox.safetensors"
    again = export_training(tmp_path / "fox", "animals/fox", model, pictures, wanted, Progress())
    assert again == tmp_path / "fox-2" and (folder / "loras").exists(), "results are left alone"

    write_sd1(folder / model.path.name, "tiny", seed=1)
    code, _, said = shell(capsys, "train", folder / CONFIG, "--device", "cpu")
    assert code == 1 and "another model" in said


def test_the_shell_exports_instead_of_training(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = write_sd1(tmp_path / "tiny.safetensors", "tiny")
    write_pictures(tmp_path / "pictures", [(64, 64)])
    (tmp_path / "fox.toml").write_text("""
        name = "fox"
        model = "tiny.safetensors"
        steps = 3
        data = { folder = "pictures", resolution = 64 }
    """, encoding="utf-8")
    code, out, said = shell(capsys, "train", tmp_path / "fox.toml", "--export", tmp_path / "taken", "--device", "cpu",
                            "--json")
    assert code == 0, said
    assert json.loads(out) == {"folder": str(tmp_path / "taken"), "model": str(model)}
    read = read_train_file(tmp_path / "taken" / CONFIG)
    assert (read.name, read.request) == ("fox", read_train_file(tmp_path / "fox.toml").request)
    code, out, _ = shell(capsys, "train", tmp_path / "fox.toml", "--export", tmp_path / "taken", "--device", "cpu")
    assert code == 0 and out.startswith(str(tmp_path / "taken-2")) and str(model) in out and CONFIG in out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "fox.toml", "pictures", "taken", "taken-2", "tiny.safetensors"]


def test_every_value_of_a_request_is_written(pictures: TrainingSet, tmp_path: Path) -> None:
    model = open_model(write_sd1(tmp_path / "tiny.safetensors", "tiny"))
    folder = export_training(tmp_path / "fox", "fox", model, pictures, REQUEST, Progress())
    read = read_train_file(folder / CONFIG)
    assert read.request == REQUEST
    assert (read.model.name, read.model_hash) == ("tiny.safetensors", model.fingerprint)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "C:\\secret.png"])
def test_an_export_names_no_file_outside_of_its_folder(pictures: TrainingSet, tmp_path: Path, name: str) -> None:
    write_portable(pictures, tmp_path, Progress())
    values = json.loads((tmp_path / SET_FILE).read_text(encoding="utf-8"))
    values["samples"][0]["image"] = name
    (tmp_path / SET_FILE).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(AtelierError, match="not in its folder"):
        read_portable(tmp_path / SET_FILE, Progress())


@pytest.mark.parametrize(("change", "why"), [
    (lambda values: values.pop("samples"), "KeyError: 'samples'"),
    (lambda values: values.update(samples=5), "TypeError"),
    (lambda values: values["samples"][0].pop("repeats"), "KeyError: 'repeats'"),
    (lambda values: values.update(samples=["p0.png"]), "TypeError"),
    (lambda values: values["samples"][0].update(repeats="often"), "ValueError: .*'often'"),
    (lambda values: values["samples"][0].update(repeats=float("inf")), "OverflowError"),
    (lambda values: values["samples"][0].update(captions="a fox"), "TypeError: 'captions' is no list"),
    (lambda values: values.update(resolution="64"), "ValueError"),
])
def test_a_damaged_description_of_a_training_set_is_named(pictures: TrainingSet, tmp_path: Path,
                                                          change: Callable[[dict[str, Any]], Any], why: str) -> None:
    write_portable(pictures, tmp_path, Progress())
    values = json.loads((tmp_path / SET_FILE).read_text(encoding="utf-8"))
    change(values)
    (tmp_path / SET_FILE).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(AtelierError, match=rf"{SET_FILE} does not describe a training set \(({why})"):
        read_portable(tmp_path / SET_FILE, Progress())


def test_a_picture_that_is_used_twice_is_taken_along_once(pictures: TrainingSet, tmp_path: Path) -> None:
    both = join([pictures, replace(pictures, resolution=Resolution(96))])
    (tmp_path / "taken").mkdir()
    write_portable(both, tmp_path / "taken", Progress())
    files = [path for path in (tmp_path / "taken" / "pictures").rglob("*") if path.is_file()]
    assert len(files) == len({sample.image for sample in both.samples}) < len(both.samples)
    assert read_portable(tmp_path / "taken" / SET_FILE, Progress()).digest == both.digest
