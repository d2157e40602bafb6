"""Batch size 0 trains as many pictures together as fit into the card."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from kit.loras import published_unet
from kit.training import tiny_unet
from kit.training_run import REQUEST
from safetensors import safe_open

from atelier.dataset.types import Resolution, Sample, TrainingSet
from atelier.train import diffusers_trainable
from atelier.train.fitting_batch import MOST, SHARE, fitting_batch, with_fitting_batch
from atelier.train.memory_plan import MemoryPlan, plan_memory
from atelier.train.processes import Processes
from atelier.train.request.device import DeviceConfig
from atelier.train.request.lora import LoraConfig
from atelier.train.step_count import StepCount
from atelier.train.unet_memory import count_unet
from atelier.train.unet_memory_plan import fitting_unet_batch

PLAIN, KEPT = DeviceConfig(gradient_checkpointing="off"), DeviceConfig(gradient_checkpointing="on")
CHOOSE = REQUEST.override({"batch_size": 0})


def need(config: DeviceConfig, batch: int, side: int = 32) -> int:
    count = count_unet(tiny_unet().config, LoraConfig(), dtype=torch.float32, batch=batch, height=side, width=side)
    return plan_memory(count, config, None).need or 0


def card_for(bytes: float) -> int:
    return int(bytes / SHARE) + 1


def chosen(memory: int | None, pictures: int = 9, config: DeviceConfig | None = None, size: int = 256) -> int:
    samples = tuple(Sample(image=Path(f"{n}.png"), captions=("a fox",), digest=str(n), size=(size, size),
                           resolution=Resolution(size // 2) if n % 2 else None) for n in range(pictures))
    request = replace(CHOOSE, device=config or DeviceConfig(), lora=LoraConfig())
    data = TrainingSet(samples=samples, resolution=Resolution(size))
    return fitting_unet_batch(tiny_unet().config, data, request, torch.float32, memory)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("config", [PLAIN, KEPT], ids=["plain", "checkpointing"])
def test_the_largest_that_fits_is_found(config: DeviceConfig, batch: int) -> None:
    assert chosen(card_for(need(config, batch)), config=config) == batch
    assert chosen(card_for(need(config, batch + 1)) - 10_000, config=config) == batch


def test_checkpointing_is_on_only_where_one_picture_needs_it() -> None:
    plain, kept = need(PLAIN, 1), need(KEPT, 1)
    assert chosen(card_for(plain)) == 1
    # Just too small without it: with it, several fit.
    several = chosen(card_for(plain) - 10_000)
    assert several > 1 and need(KEPT, several) <= plain < need(KEPT, several + 1)
    assert chosen(card_for(kept) - 10_000) == 1  # blocks wait in main memory


def test_no_more_than_there_are_pictures_or_than_make_sense() -> None:
    assert chosen(10**12, pictures=3) == 3
    assert chosen(10**12, pictures=200) == MOST
    assert chosen(None) == 1, "the memory is the machine's"


@cache
def count_sd1(batch: int) -> StepCount:
    """A step of SD 1.5 at 512 pixels."""
    return count_unet(published_unet("sd1").config, LoraConfig(rank=16), dtype=torch.bfloat16, height=64, width=64,
                      batch=batch)


@pytest.mark.parametrize("gigabytes", [8, 24])
def test_one_picture_more_would_not_fit(gigabytes: int) -> None:
    asked: set[int] = set()

    def once(batch: int) -> StepCount:
        asked.add(batch)
        return count_sd1(batch)

    batch = fitting_batch(once, DeviceConfig(), gigabytes * 10**9, 100)
    room = SHARE * gigabytes * 1e9
    assert 2 <= batch < MOST and len(asked) <= 5
    needs = [plan_memory(count_sd1(size), PLAIN, None).need or 0 for size in (batch, batch + 1)]
    assert needs[0] <= room < needs[1]


@pytest.mark.parametrize("most", [0, 1])
def test_one_picture_needs_no_counting(most: int) -> None:
    assert fitting_batch(lambda batch: pytest.fail("it was counted"), PLAIN, 10**12, most) == 1


@pytest.mark.parametrize(("needs", "batch"), [
    ([10, 20, 45, 80, 95, 105], 5), ([10, 20, 45, 80, 100, 105], 5), ([10, 20, 60, 101, 140, 180], 3),
    ([10, 20, 101, 130, 160, 190], 2), ([60, 101, 150, 200, 250, 300], 1)])
def test_a_step_that_grows_faster_than_its_pictures_still_fits(monkeypatch: pytest.MonkeyPatch, needs: list[int],
                                                               batch: int) -> None:
    """The first guess, in proportion to the pictures, is then too large."""
    def plan(size: int, config: DeviceConfig, room: int) -> MemoryPlan:
        return MemoryPlan(checkpointing=False, swapped=(), blocks=4, need=needs[size - 1], free=room)

    monkeypatch.setattr("atelier.train.fitting_batch.plan_memory", plan)
    assert fitting_batch(cast(Any, int), PLAIN, card_for(100), len(needs)) == batch


class Two(Processes):
    """Beside another process, whose card takes 3 pictures."""

    def exchange(self, value):
        return [value, 3]


@pytest.mark.parametrize(("own", "together"), [(2, 2), (8, 3)])
def test_all_processes_get_what_fits_the_smallest_card(own: int, together: int) -> None:
    assert with_fitting_batch(CHOOSE, lambda: own, Two()).optimizer.batch_size == together


def test_a_number_is_left_as_it_is() -> None:
    assert with_fitting_batch(REQUEST, lambda: pytest.fail("nothing is counted"), Two()) is REQUEST


def test_the_run_is_that_of_the_number(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusers_trainable, "whole_memory", lambda device: 10**12)
    fitted = run("fitted", CHOOSE.override({"steps": 2}))
    with safe_open(str(fitted.lora), "pt") as file:
        assert file.metadata()["ss_total_batch_size"] == "3"
    assert "Batch size 3: as many pictures as fit." in fitted.result.warnings
    same = run("fitted", REQUEST.override({"steps": 2, "batch_size": 3}))
    assert same.reused and same.folder.path == fitted.folder.path
    other = run("other", REQUEST.override({"steps": 2, "batch_size": 2}))
    assert not any("as many pictures" in sentence for sentence in other.result.warnings)


def test_without_a_card_it_is_one(run) -> None:
    assert "Batch size 1: as many pictures as fit." in run("fitted", CHOOSE.override({"steps": 1})).result.warnings
