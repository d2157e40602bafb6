"""The pace of training, by a clock that stands still until told."""

from __future__ import annotations

import pytest

from atelier.train.step_rate import WINDOW, StepRate, format_rate


class Run:
    """Steps that take as long as they are told to."""

    def __init__(self, step: int = 0) -> None:
        self.now, self.step = 1000.0, step
        self.rate = StepRate(step, lambda: self.now)

    def __call__(self, *seconds: float, steps: int = 1) -> float:
        """Do some steps at once for each of `seconds`; the rate after the last."""
        reached = 0.0
        for each in seconds:
            self.now += each
            self.step += steps
            reached = self.rate.update(self.step)
        return reached


def test_a_slow_first_step_is_forgotten_with_the_second() -> None:
    run = Run()
    assert run(300) == pytest.approx(1 / 300), "all that is known"
    assert run(0.1) == pytest.approx(10)
    assert run(*[0.1] * 98) == pytest.approx(10)


def test_a_resumed_run_counts_its_own_steps() -> None:
    run = Run(step=500)
    assert run(4) == pytest.approx(1 / 4)
    assert run(2, 2) == pytest.approx(1 / 2)


def test_the_rate_is_that_of_the_last_minute() -> None:
    run = Run()
    run(1, *[10] * 20)
    assert run(*[1] * 30) == pytest.approx(33 / WINDOW)
    assert run(*[1] * 30) == pytest.approx(1)


def test_steps_longer_than_the_window_have_a_rate_too() -> None:
    run = Run()
    assert run(1, 200) == pytest.approx(1 / 200)
    assert run(100) == pytest.approx(1 / 100)


def test_several_steps_may_be_counted_at_once() -> None:
    assert Run()(0.25, 0.25, 0.25, steps=5) == pytest.approx(20)


def test_what_is_left_out_changes_nothing() -> None:
    run = Run()
    run(1, 1, 1)
    run.now += 500
    run.rate.leave_out(500)
    assert run(1) == pytest.approx(1)


def test_what_is_remembered_is_bounded() -> None:
    run = Run()
    run(*[0.01] * 20_000)
    assert len(run.rate._marks) <= WINDOW / 0.01 + 3


@pytest.mark.parametrize(("pace", "left", "text"), [
    (1.25, 15, "1.25 it/s · 0:12 left"), (0.5, 91, "2.0 s/it · 3:02 left"),
    (20.0, 100_000, "20.00 it/s · 1:23:20 left"),
    (3.0, 0, "3.00 it/s · 0:00 left"), (1.125, 9, "1.13 it/s · 0:08 left"), (0.8, 1, "1.3 s/it · 0:01 left"),
])
def test_pace_and_time_left_in_words(pace: float, left: int, text: str) -> None:
    assert format_rate(pace, left) == text
