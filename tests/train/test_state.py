"""The state of a run on disk, where the disk is full and where an open map would lock the file."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from kit.training import MemorySet, denoiser
from kit.training_loop import request, train_steps

from atelier import files
from atelier.dataset.store import PackStore
from atelier.errors import AtelierError
from atelier.train.early_stopping import EarlyStopping
from atelier.train.loss_scale import LossScale
from atelier.train.run_state import RunState
from atelier.train.state_file import load_state, save_state
from atelier.train.trainer import Trainer

STATE = RunState(early_stopping=EarlyStopping(3, best=0.5, best_step=2), step=4, loss_scale=LossScale.restored(2.0, 7))


def trainer(ema_decay: float = 0.0) -> Trainer:
    options = dict(precision="fp32", monitor="off", patience=0, ema_decay=ema_decay)
    return Trainer(denoiser(), MemorySet.of(4), request(dict(rank=4), options, steps=8))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder whose new files are the kernel's full device."""
    def temp_path(path: Path) -> Path:
        part = path.parent / f"{path.name}.part"
        part.symlink_to("/dev/full")
        return part

    monkeypatch.setattr(files, "temp_path", temp_path)
    return tmp_path


def test_a_full_disk_is_said_of_state_and_cache(full_disk: Path) -> None:
    path = full_disk / "state.safetensors"
    path.write_bytes(b"the one before")
    with pytest.raises(AtelierError, match=r"disk is full: .*state\.safetensors"):
        save_state(path, trainer(), STATE)
    with pytest.raises(AtelierError, match="disk is full"):
        PackStore(full_disk / "cache").add({"a" * 32: {"mean": torch.zeros(2_000)}})
    assert path.read_bytes() == b"the one before"
    assert [file.name for file in full_disk.rglob("*") if file.is_file() or file.is_symlink()] == [path.name]


@pytest.mark.parametrize("ema_decay", [0.0, 0.99])
def test_a_loaded_state_lets_go_of_its_file(ema_decay: float, tmp_path: Path) -> None:
    """Windows replaces no file that is still mapped, so the next save would fail."""
    path = tmp_path / "state.safetensors"
    before = trainer(ema_decay)
    train_steps(before, 1)
    save_state(path, before, STATE)
    after = trainer(ema_decay)
    assert load_state(path, after) == STATE
    gc.collect()
    assert path.name not in Path("/proc/self/maps").read_text(encoding="utf-8")
    saved, loaded = (run.optimizer.state_dict()["state"] for run in (before, after))
    assert saved and saved.keys() == loaded.keys()
    assert all(torch.equal(saved[index]["exp_avg"], loaded[index]["exp_avg"]) for index in saved)
