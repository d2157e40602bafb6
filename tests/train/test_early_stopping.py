"""Which pictures validation keeps out of training."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from kit.training import MemorySet
from kit.training_loop import request

from atelier.dataset.cache import EncodedItem
from atelier.train.early_stopping import ValidationPlan
from atelier.train.report import RunResult, TrainReport
from atelier.train.run_folder import RunFolder

OPTIONS = dict(monitor="validation", patience=3, validation_pictures=4)


def plan(items: tuple[EncodedItem, ...], seed: int = 0) -> ValidationPlan:
    return ValidationPlan.of(items, request(dict(rank=4), OPTIONS, steps=10, seed=seed))


def grouped(*sizes: int) -> tuple[EncodedItem, ...]:
    """A folder for each size, of so many pictures."""
    folders = [str(folder) for folder, size in enumerate(sizes) for _ in range(size)]
    return tuple(replace(item, group=folder) for item, folder in zip(MemorySet.of(sum(sizes)).items, folders,
                                                                     strict=True))


@pytest.mark.parametrize("sizes", [(1, 39), (4, 4, 4, 28), (5, 5, 10, 20), (2, 2, 6, 30)])
def test_no_folder_loses_more_than_a_fifth(sizes: tuple[int, ...]) -> None:
    items = grouped(*sizes)
    for seed in range(100):
        chosen = plan(items, seed)
        taken = Counter(items[use.index].group for use in chosen.uses)
        assert chosen.held_out and taken.total() == 4
        assert all(count <= sizes[int(folder)] // 5 for folder, count in taken.items())


def test_sets_of_small_folders_alone_hold_nothing_out() -> None:
    chosen = plan(grouped(*[4] * 10))
    assert not chosen.held_out and len(chosen.uses) == 4


def test_copies_are_never_on_both_sides() -> None:
    items = tuple(replace(item, digest=str(item.index // 2 if item.index < 30 else item.index))
                  for item in MemorySet.of(40).items)
    drawn = {use.index for seed in range(100) for use in plan(items, seed).uses}
    assert drawn == set(range(30, 40))


def test_a_set_of_one_folder_is_drawn_from_as_before() -> None:
    """These are the pictures that an earlier version held out, so old runs can be told."""
    import random

    expected = sorted(random.Random("atelier validation/7").sample(range(60), 4))
    assert [use.index for use in plan(MemorySet.of(60).items, 7).uses] == expected


@pytest.mark.parametrize("count", [2, 12])
def test_the_report_names_what_was_kept_out(count: int, tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(count)]
    result = RunResult(status="complete", weights="last.safetensors", step=4, total=4, steps_per_epoch=4, best_step=0,
                       best_loss=None, seconds=1.0, seconds_per_step=0.25, pictures=20, held_out_names=names,
                       precision="float32", gradient_checkpointing=False)
    text = TrainReport(name="x", lora=tmp_path / "x.safetensors", folder=RunFolder(tmp_path), result=result,
                       reused=False).text()
    shown = ", ".join(names[:10]) + (", …" if count > 10 else "")
    assert f"{count} pictures were kept out of training to validate on: {shown}" in text.splitlines()
    assert RunResult.from_dict(result.as_dict()) == result
