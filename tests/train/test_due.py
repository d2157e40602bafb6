"""When a run validates if nobody says how often."""

from __future__ import annotations

import pytest
from kit.training_loop import request

from atelier.train.due import Due
from atelier.train.early_stopping import EarlyStopping
from atelier.train.run_state import RunState


@pytest.mark.parametrize(("steps_per_epoch", "expected"), [
    (7, [50, 100, 150, 200, 250]), (50, [50, 100, 150, 200, 250]), (120, [120, 240])])
def test_validation_comes_each_epoch_but_not_more_often_than_every_50_steps(steps_per_epoch: int, expected: list[int]
                                                                            ) -> None:
    due = Due(request(dict(rank=4), dict(monitor="validation"), steps=250), 250, steps_per_epoch)
    state = RunState(early_stopping=EarlyStopping(patience=5))
    steps = []
    for state.step in range(1, 251):
        if due.validation(state):
            steps.append(state.step)
    assert steps == expected
