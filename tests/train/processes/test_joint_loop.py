"""Several real processes train as one would with their batches together; the first alone writes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.joint_loop import Case, outcome, run_cases
from kit.training import MemorySet
from kit.training_loop import loop_in, request
from safetensors.torch import load_file

CLOSE, CLOSE_ON_AVERAGE = 1e-3, 2e-7
"""Differences of weights, which move by 5e-3 a step, between the sums of one process and those of several: rounding.
AdamW divides a weight's gradient by its size, so that of the few gradients that are nearly 0 the rounding is seen."""
PLAIN = dict(rank=4, learning_rate=5e-3, monitor="off", patience=0, schedule="constant", steps=6)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes by a POSIX signal")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """What two processes did, one case after the other. In the last, one of them is killed."""
    base = tmp_path_factory.mktemp("pair")

    def case(name: str, options: dict[str, Any], **more: Any) -> Case:
        (base / name).mkdir()
        return Case(folder=str(base / name), options=PLAIN | options, **more)

    cases = {
        "accumulated": case("accumulated", dict(batch_size=2, gradient_accumulation=2, ema_decay=0.9)),
        "uneven": case("uneven", dict(batch_size=2), pictures=3),
        "validated": case("validated", dict(batch_size=4, monitor="validation", patience=1, validate_every=2,
                                            min_delta=1e3), at_once=2),
        "stopped": case("stopped", dict(batch_size=2), stop={"1": 2}),
        "interrupted": case("interrupted", dict(batch_size=4), at_once=2, interrupt={"1": 3}),
        "failed": case("failed", dict(batch_size=2), fail={"1": 2}),
        "killed": case("killed", dict(batch_size=2), die={"1": 4}),
    }
    codes = run_cases(list(cases.values()), 2, base)
    assert codes[0] == 0 and codes[1] != 0
    return cases


def alone(case: Case, folder: Path, **options: Any) -> Path:
    """The state of one process that trains all of a case."""
    loop_in(folder, request(case.options | options), data=MemorySet.of(case.pictures)).run()
    return folder


def assert_close(folder: Path, other: Path) -> None:
    """Weights, their average and the optimiser's moments agree within rounding."""
    one, two = load_file(folder / "state.safetensors"), load_file(other / "state.safetensors")
    assert one.keys() == two.keys()
    differences = torch.cat([(one[key] - two[key]).abs().flatten() for key in one])
    assert differences.max() < CLOSE and differences.mean() < CLOSE_ON_AVERAGE


@pytest.mark.parametrize("name", ["accumulated", "uneven", "validated"])
def test_two_processes_train_what_one_does(pair: dict[str, Case], name: str, tmp_path: Path) -> None:
    case = pair[name]
    folder = alone(case, tmp_path)
    assert_close(Path(case.folder), folder)
    ended = outcome(case, 0)
    loop = loop_in(folder, request(case.options), data=MemorySet.of(case.pictures)).run()
    assert ended["losses"] == pytest.approx(loop.state.history.losses, abs=1e-6)
    assert [loss for _, loss in ended["validation"]] == pytest.approx(
        [loss for _, loss in loop.state.history.validation], abs=1e-6)
    assert ended["status"] == loop.status == ("stopped early" if name == "validated" else "complete")
    assert ended == outcome(case, 1), "to the last bit"
    assert (ended["drawn"][1] != ended["weights"]) == (name == "validated"), "with the weights that are handed on"


def test_a_stop_ends_all_after_the_same_step(pair: dict[str, Case]) -> None:
    ended = [outcome(pair["stopped"], rank) for rank in (0, 1)]
    assert ended[0] == ended[1]
    assert ended[0]["status"] == "stopped by user" and len(ended[0]["losses"]) == 2


def test_an_interrupt_of_one_interrupts_all(pair: dict[str, Case]) -> None:
    ended = [outcome(pair["interrupted"], rank) for rank in (0, 1)]
    assert ended[0] == ended[1]
    assert ended[0]["error"] == "Interrupted" and len(ended[0]["losses"]) == 3


@pytest.mark.parametrize(("name", "steps", "errors"), [
    ("failed", 2, ("OtherProcessFailed", "ValueError")), ("killed", 4, ("OtherProcessFailed", None))])
def test_a_process_that_fails_or_dies_ends_the_others_with_the_work_kept(
        pair: dict[str, Case], name: str, steps: int, errors: tuple[str, str | None], tmp_path: Path) -> None:
    case = pair[name]
    assert outcome(case, 0)["error"] == errors[0]
    if errors[1]:
        assert outcome(case, 1)["error"] == errors[1]
    assert len(outcome(case, 0)["losses"]) == steps
    whole = alone(case, tmp_path)
    resumed = loop_in(Path(case.folder), request(case.options))
    assert resumed.run().began_step == steps
    assert_close(Path(case.folder), whole)


def test_three_go_on_with_what_two_began(pair: dict[str, Case], tmp_path: Path) -> None:
    case = replace(pair["interrupted"], interrupt={})
    assert run_cases([case], 3, tmp_path) == [0, 0, 0]
    ended = [outcome(case, rank) for rank in range(3)]
    assert ended[0] == ended[1] == ended[2] and ended[0]["status"] == "complete"
    assert_close(Path(case.folder), alone(case, tmp_path / "alone"))


def test_a_process_that_falls_silent_ends_the_others(tmp_path: Path) -> None:
    (tmp_path / "frozen").mkdir()
    options = PLAIN | dict(batch_size=2, save_every=1)
    assert run_cases([Case(folder=str(tmp_path / "frozen"), options=options, freeze={"1": 2})], 2, tmp_path)[0] == 1
    resumed = loop_in(tmp_path / "frozen", request(options)).run()
    assert resumed.began_step == 2, "the state that was saved last"


@pytest.mark.slow
def test_four_processes_train_what_one_does(tmp_path: Path) -> None:
    (tmp_path / "four").mkdir()
    case = Case(folder=str(tmp_path / "four"), options=PLAIN | dict(batch_size=4, gradient_accumulation=2, steps=10))
    assert run_cases([case], 4, tmp_path) == [0] * 4
    assert_close(Path(case.folder), alone(case, tmp_path / "alone"))
    assert len({outcome(case, rank)["weights"] for rank in range(4)}) == 1
