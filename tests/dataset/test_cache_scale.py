"""The cache of latents follows the VAE's scaling factor and shift, which the weights do not tell."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from kit.checkpoints import write_sd1
from kit.pictures import write_pictures

from atelier.convert.folder import to_folder
from atelier.dataset.cache import EncodedSet
from atelier.dataset.encode import encode
from atelier.dataset.folder import FolderOptions, read_folder
from atelier.dataset.types import Resolution, TrainingSet
from atelier.files import write_json
from atelier.models import load
from atelier.models.handle import DiffusersModel
from atelier.models.open import open_model
from atelier.progress import Progress
from atelier.sampling import decode

SIZES = [(96, 64), (64, 96)]


@pytest.fixture
def data(tmp_path: Path) -> TrainingSet:
    return read_folder(write_pictures(tmp_path / "pictures", SIZES), FolderOptions(resolution=Resolution(64)))


def encoded(data: TrainingSet, model: DiffusersModel, cache: Path) -> EncodedSet:
    return encode(data, model, cache, device="cpu", dtype=torch.float32, batch_size=2, progress=Progress())


def test_another_scaling_factor_gives_other_latents(data: TrainingSet, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    to_folder(write_sd1(tmp_path / "tiny.safetensors", "tiny", "float32"), tmp_path / "model")
    config = tmp_path / "model" / "vae" / "config.json"
    usual = open_model(tmp_path / "model")
    first = encoded(data, usual, tmp_path / "cache")
    write_json(config, json.loads(config.read_text(encoding="utf-8")) | {"scaling_factor": 0.5, "shift_factor": 0.25})
    changed = open_model(tmp_path / "model")
    assert changed.fingerprint == usual.fingerprint
    monkeypatch.setattr(load, "load_text", None)  # captions are in the cache
    second = encoded(data, changed, tmp_path / "cache")
    for index in range(len(SIZES)):
        mean, std = first.moments(index, False)
        other_mean, other_std = second.moments(index, False)
        torch.testing.assert_close(other_mean, (mean / 0.18215 - 0.25) * 0.5, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other_std, std / 0.18215 * 0.5, rtol=1e-4, atol=1e-5)
        pictures = [np.asarray(decode(load.load_vae(model), latents[None])[0], int)
                    for model, latents in ((usual, mean), (changed, other_mean))]
        assert np.abs(pictures[0] - pictures[1]).max() <= 1, "what was encoded so is decoded so"


def test_the_usual_scaling_factor_keeps_the_folders_of_older_caches(data: TrainingSet, tmp_path: Path) -> None:
    model = open_model(write_sd1(tmp_path / "tiny.safetensors", "tiny", "float32"))
    encoded(data, model, tmp_path / "cache")
    latents, text = (hashlib.sha256(json.dumps([version, model.fingerprint, "cpu", "torch.float32"]).encode()
                                    ).hexdigest()[:16] for version in (2, 1))
    assert sorted(path.relative_to(tmp_path / "cache").as_posix() for path in (tmp_path / "cache").glob("*/*")) == [
        f"latents/{latents}", f"text/{text}"]
