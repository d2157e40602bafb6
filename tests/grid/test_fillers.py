"""Fillers: different pictures, by seed, from folders that are not always tidy."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from kit.clip_models import random_pictures

from atelier.errors import AtelierError
from atelier.grid import fillers as module
from atelier.grid.fillers import draw_fillers, fillers_from_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures, two of them deeper; two copies under other names; a damaged file and a text file."""
    (tmp_path / "more").mkdir()
    for number, picture in enumerate(random_pictures([(12 + n, 10) for n in range(10)])):
        picture.save(tmp_path / ("more" if number > 7 else "") / f"{number}.png")
    shutil.copy(tmp_path / "0.png", tmp_path / "copy of 0.png")
    shutil.copy(tmp_path / "1.png", tmp_path / "more" / "1 again.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "2.png").read_bytes()[:40])
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    return tmp_path


def names(folder: Path, count: int, seed: int, repeats: bool = False) -> list[str]:
    return [filler.path.name for filler in fillers_from_folder(folder, count, seed, allow_repeats=repeats)]


def test_all_different_pictures_and_none_twice(folder: Path) -> None:
    fillers = fillers_from_folder(folder, 10, seed=3)
    assert len({filler.picture.tobytes() for filler in fillers}) == 10
    assert {filler.picture.width for filler in fillers} == set(range(12, 22)), "every size once: every picture once"


def test_the_seed_decides(folder: Path) -> None:
    assert names(folder, 6, seed=1) == names(folder, 6, seed=1)
    assert len({tuple(names(folder, 6, seed=seed)) for seed in range(8)}) == 8
    assert names(folder, 6, seed=1)[:3] == names(folder, 3, seed=1), "asking for more keeps the first"


def test_too_few_are_named_unless_repeats_are_allowed(folder: Path) -> None:
    with pytest.raises(AtelierError, match=r"11 fillers are wanted.* 10 different pictures among 13 files"):
        fillers_from_folder(folder, 11, seed=0)
    repeated = fillers_from_folder(folder, 25, seed=0, allow_repeats=True)
    uses = [sum(other.path == filler.path for other in repeated) for filler in repeated[:10]]
    assert sorted(uses) == [2] * 5 + [3] * 5, "no picture is used a third time before all were used twice"
    assert names(folder, 25, 0, repeats=True) == [filler.path.name for filler in repeated]


def test_nothing_to_draw_from(tmp_path: Path) -> None:
    for repeats in (False, True):
        with pytest.raises(AtelierError, match="2 fillers are wanted, and there are 0"):
            fillers_from_folder(tmp_path, 2, seed=0, allow_repeats=repeats)
    with pytest.raises(AtelierError, match="count is 0"):
        draw_fillers([], 0, seed=0)


def test_one_picture_is_enough(folder: Path) -> None:
    assert len(names(folder, 1, seed=0)) == 1


def test_damaged_files_are_passed_over_with_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "torn.png" not in names(folder, 10, seed=3)
    assert "torn.png" in caplog.text


def test_only_what_is_needed_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = module.read_picture
    monkeypatch.setattr(module, "read_picture", lambda path: read.append(path) or original(path))
    fillers = fillers_from_folder(folder, 2, seed=4)
    assert len(read) <= 4
    assert np.asarray(fillers[0].picture).shape[2] == 3
