"""Values of configurations are of the type that their field declares, and the message names field and value."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atelier.errors import AtelierError
from atelier.shell.train_file import TrainFile, read_train_file
from atelier.train.request.device import DeviceConfig
from atelier.train.request.lora import LoraConfig
from atelier.train.request.outputs import SampleConfig
from atelier.train.request.presets import build_request
from atelier.train.request.recipe import OptimizerConfig, ValidationConfig
from atelier.train.request.request import TrainRequest

HEAD = 'name = "x"\nmodel = "m.safetensors"\n'
DATA = '[data]\nfolder = "pictures"\n'


def read(folder: Path, top: str = "", data: str = "", tables: str = "") -> TrainFile:
    path = folder / "train.toml"
    path.write_text(f"{HEAD}{top}\n{DATA}{data}\n{tables}\n", encoding="utf-8")
    return read_train_file(path)


@pytest.mark.parametrize(("cls", "name", "value"), [
    (OptimizerConfig, "learning_rate", "1e-4"), (OptimizerConfig, "learning_rate", float("inf")),
    (OptimizerConfig, "learning_rate", float("nan")), (OptimizerConfig, "learning_rate", 10 ** 400),
    (OptimizerConfig, "learning_rate", True), (OptimizerConfig, "batch_size", 2.5),
    (ValidationConfig, "holdout", "false"),
    (SampleConfig, "sample_prompt", ["a"]), (DeviceConfig, "precision", 16), (LoraConfig, "rank", "16"),
    (LoraConfig, "rank", 16.5), (LoraConfig, "rank", 16.0), (LoraConfig, "rank", True), (LoraConfig, "rank", None),
    (LoraConfig, "rslora", "false"), (LoraConfig, "train_text_encoder", 1), (LoraConfig, "targets", ["attention"]),
    (TrainRequest, "steps", "5"), (TrainRequest, "steps", 5.5), (TrainRequest, "seed", "3"),
])
def test_a_value_of_another_type_is_named(cls: type, name: str, value: Any) -> None:
    with pytest.raises(AtelierError) as caught:
        cls(**{name: value})
    assert f"{name} is {value!r}" in str(caught.value)


def test_numbers_of_numpy_are_taken_and_made_plain() -> None:
    request = build_request(None, {"rank": np.int64(4), "alpha": np.float32(8), "learning_rate": 1,
                                   "steps": np.int32(5)})
    assert request == build_request(None, {"rank": 4, "alpha": 8.0, "learning_rate": 1.0, "steps": 5})
    assert json.dumps(asdict(request))


@pytest.mark.parametrize("tables", ["lora = 3", "options = [1]", 'preset = ["subject"]', "preset = 3",
                                    "options = { rank = 4 }", "lora = { steps = 4 }", "options = { rnk = 4 }"])
def test_a_table_or_preset_of_another_type_is_refused(tmp_path: Path, tables: str) -> None:
    with pytest.raises(AtelierError):
        read(tmp_path, tables)


@pytest.mark.parametrize(("part", "line"), [
    ("data", 'repeats = "2"'), ("data", "repeats = 2.5"), ("data", 'flip = "no"'), ("data", "recursive = 0"),
    ("data", "trigger = 5"), ("data", "caption_lines = 3"), ("data", "captions = 3"), ("data", "masks = 3"),
    ("data", 'prior = ["a"]'), ("data", "resolution = 512.0"), ("data", 'resolution = "512"'),
    ("data", 'resolution = { size = "512" }'), ("data", "resolution = true"), ("tables", "[place]\nloras = 3"),
    ("tables", '[options]\nlearning_rate = "1e-4"'), ("tables", '[lora]\nrank = "8"'), ("top", "prediction_type = 3"),
    ("top", 'steps = "5"'), ("top", 'steps = 5\nseed = "3"'), ("top", "lora = 3"), ("top", 'preset = ["subject"]'),
])
def test_a_configuration_file_with_a_value_of_another_type_is_refused(part: str, line: str, tmp_path: Path) -> None:
    read(tmp_path)
    name = line.splitlines()[-1].split(" =")[0]
    with pytest.raises(AtelierError, match=r"size|resolution" if name == "resolution" else rf"(?i){name}"):
        read(tmp_path, **{part: line})


def test_what_is_right_passes(tmp_path: Path) -> None:
    found = read(tmp_path, "steps = 5\nseed = 3", "repeats = 2\nflip = true\nresolution = 256",
                 "[lora]\nrank = 8\nalpha = 4\nrslora = true")
    assert (found.data.repeats, found.data.flip, found.data.resolution.size) == (2, True, 256)
    assert (found.request.lora.rank, found.request.lora.alpha, found.request.lora.rslora) == (8, 4.0, True)
    assert (found.request.steps, found.request.seed) == (5, 3)


def test_the_mark_that_editors_put_in_front_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_bytes(b"\xef\xbb\xbf" + (HEAD + DATA).replace("\n", "\r\n").encode())
    assert read_train_file(path).name == "x"


@pytest.mark.parametrize("coding", ["latin-1", "utf-16"])
def test_a_file_that_is_not_utf8_is_named(coding: str, tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_bytes(f'{HEAD}# café\n{DATA}'.encode(coding))
    with pytest.raises(AtelierError, match=r"train\.toml is not UTF-8") as caught:
        read_train_file(path)
    assert ("line 3" if coding == "latin-1" else "line 1") in str(caught.value)


def test_a_tilde_is_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))
    path = tmp_path / "train.toml"
    path.write_text('name = "x"\nmodel = "~/m.safetensors"\n[data]\nfolder = "~/pictures"\nmasks = "~/masks"\n'
                    'prior = "prior"\n[place]\nloras = "~/loras"\n', encoding="utf-8")
    found = read_train_file(path)
    assert (found.model, found.folder, found.data.masks) == (home / "m.safetensors", home / "pictures", home / "masks")
    assert (found.data.prior, found.paths.loras, found.paths.runs) == (tmp_path / "prior", home / "loras",
                                                                      tmp_path / "runs")
