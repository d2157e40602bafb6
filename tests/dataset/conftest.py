"""A small model and pictures to encode."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kit.checkpoints import write_sd1
from kit.encoding import BUCKETS, SIZES
from kit.pictures import write_pictures

from atelier.dataset.folder import FolderOptions, read_folder
from atelier.dataset.types import TrainingSet
from atelier.models.handle import DiffusersModel
from atelier.models.open import open_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusersModel:
    return open_model(write_sd1(tmp_path_factory.mktemp("model") / "tiny.safetensors", "tiny", "float32"))


@pytest.fixture
def one_thread() -> None:
    """Use one thread: on layers this small more are slower. A fixture of `conftest` restores the number."""
    torch.set_num_threads(1)


@pytest.fixture
def data(tmp_path: Path) -> TrainingSet:
    folder = write_pictures(tmp_path / "pictures", SIZES)
    return read_folder(folder, FolderOptions(resolution=BUCKETS, flip=True, trigger="sks"))
