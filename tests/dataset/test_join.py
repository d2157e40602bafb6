"""Training sets joined: repeats, resolutions and prior pictures stay each sample's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from kit.pictures import write_pictures

from atelier.dataset.folder import FolderOptions, read_folder
from atelier.dataset.join import join
from atelier.dataset.preview import size_counts
from atelier.dataset.types import Resolution, TrainingSet
from atelier.errors import AtelierError


def training_set(folder: Path, count: int = 2, **options: object) -> TrainingSet:
    if not folder.is_dir():
        write_pictures(folder, [(96, 64 + 8 * number) for number in range(count)])
    return read_folder(folder, FolderOptions(text="x", **{"resolution": Resolution(64), **options}))


def test_samples_keep_repeats_resolution_and_prior(tmp_path: Path) -> None:
    first = training_set(tmp_path / "a", repeats=3, trigger="ohwx")
    second = training_set(tmp_path / "b", resolution=Resolution(128), prior=tmp_path / "a", prior_text="p")
    joined = join([first, second])
    assert [sample.repeats for sample in joined.samples] == [3, 3, 1, 1, 1, 1]
    assert [sample.prior for sample in joined.samples] == [False] * 4 + [True] * 2
    assert [joined.resolution_of(sample).size for sample in joined.samples] == [64, 64, *[128] * 4]
    assert (joined.trigger, joined.largest) == ("ohwx", 128)
    assert size_counts(joined) == {(128, 128): 4, (64, 64): 2}
    again = join([joined, training_set(tmp_path / "c", 1)])
    assert [again.resolution_of(sample).size for sample in again.samples] == [64, 64, *[128] * 4, 64]


def test_a_set_alone_and_sets_of_one_resolution_have_the_digest_of_one_set(tmp_path: Path) -> None:
    data = training_set(tmp_path / "a")
    assert join([data]).digest == data.digest
    halves = [replace(data, samples=(sample,)) for sample in data.samples]
    assert join(halves).digest == data.digest


def test_the_digest_depends_on_the_samples_resolutions(tmp_path: Path) -> None:
    small, large = training_set(tmp_path / "a"), training_set(tmp_path / "a", resolution=Resolution(128))
    assert len({join(sets).digest for sets in ([small, small], [small, large], [large, small])}) == 3


def test_sets_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    first = training_set(tmp_path / "a", trigger="ohwx")
    with pytest.raises(AtelierError, match="different triggers: 'ohwx', 'sks'"):
        join([first, training_set(tmp_path / "a", trigger="sks")])
    with pytest.raises(AtelierError, match="use mirrored pictures, and others do not"):
        join([first, training_set(tmp_path / "a", flip=True)])
    with pytest.raises(AtelierError, match="no training set"):
        join([])
