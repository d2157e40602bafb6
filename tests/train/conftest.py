"""Whole runs on a tiny model and three pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kit.checkpoints import write_sd1
from kit.device import chosen_device
from kit.pictures import write_pictures
from kit.training_run import FOLDER, REQUEST

from atelier.dataset.folder import read_folder
from atelier.dataset.types import TrainingSet
from atelier.models.handle import DiffusersModel
from atelier.models.open import open_model
from atelier.progress import Progress
from atelier.train.devices import RunPaths
from atelier.train.report import TrainReport
from atelier.train.request.request import TrainRequest
from atelier.train.run import train


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusersModel:
    return open_model(write_sd1(tmp_path_factory.mktemp("model") / "tiny.safetensors", "tiny"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return read_folder(write_pictures(tmp_path_factory.mktemp("pictures"), [(80, 64), (64, 64), (70, 90)]), FOLDER)


@pytest.fixture
def run(tmp_path: Path, model: DiffusersModel, pictures: TrainingSet):
    paths = RunPaths(tmp_path / "loras", tmp_path / "runs", tmp_path / "cache", str(chosen_device()))

    def _run(name: str = "fox", request: TrainRequest = REQUEST, data: TrainingSet = pictures,
             progress: Progress | None = None, **more: Any) -> TrainReport:
        return train(name, model, data, request, paths, progress or Progress(), **more)
    return _run
