"""float16's loss scale: it falls when gradients overflow, comes back, and a step that overflowed changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kit.training import MemorySet, denoiser
from kit.training_loop import QUIET, request

from atelier.train.loss_scale import GROWTH_STEPS, LARGEST, SMALLEST, LossScale
from atelier.train.optimizers import step_where
from atelier.train.trainer import Trainer

CPU = torch.device("cpu")


def scales(finite: list[bool]) -> list[float]:
    """The scale after each of these steps."""
    scale, values = LossScale.of(torch.float16, CPU), []
    for one in finite:
        scale = scale.after(torch.tensor(one))
        values.append(scale.numbers()[0])
    return values


def test_the_rule_is_that_of_torchs_own_scaler() -> None:
    """torch.amp.GradScaler's kernel with our interval, below the largest scale."""
    finite = [step % 37 != 36 and step > 4 for step in range(4 * GROWTH_STEPS)]
    theirs, tracker, expected = torch.tensor(LARGEST), torch.tensor(0, dtype=torch.int32), []
    for one in finite:
        torch._amp_update_scale_(theirs, tracker, torch.tensor(float(not one)), 2.0, 0.5, GROWTH_STEPS)
        expected.append(max(theirs.item(), SMALLEST))
    assert scales(finite) == expected


def test_the_scale_comes_back_and_stays_in_its_range() -> None:
    assert scales([False] * 3 + [True] * 5 * GROWTH_STEPS)[-1] == LARGEST
    assert scales([False] * 30)[-1] == SMALLEST
    assert len(set(scales([True] * 3 * GROWTH_STEPS))) == 1


def test_only_float16_has_one() -> None:
    assert not LossScale.of(torch.bfloat16, CPU).on and LossScale.of(torch.bfloat16, CPU).numbers() == (1.0, 0)
    again = LossScale.restored(*LossScale.of(torch.float16, CPU).after(torch.tensor(True)).numbers())
    assert again.on and again.numbers() == (LARGEST, 1)


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_that_overflowed_changes_nothing(fused: bool) -> None:
    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=fused)
    weight.grad = torch.full((3,), float("nan"))
    step_where(torch.tensor(False), optimizer)
    assert weight.tolist() == [1, 1, 1]
    reference = torch.ones(3, requires_grad=True)
    plain = torch.optim.AdamW([reference], lr=0.1, fused=fused)
    weight.grad, reference.grad = torch.ones(3), torch.ones(3)
    step_where(torch.tensor(True), optimizer)
    plain.step()
    assert torch.equal(weight, reference) and not torch.equal(weight, torch.ones(3)), "nor does it count as a step"


def test_one_overflow_in_many_steps_does_not_wear_the_scale_out(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(denoiser(dtype=torch.float16), MemorySet.of(2), request(dict(rank=2), QUIET, steps=500))
    accumulate, scale, values = Trainer._accumulate, trainer.initial_loss_scale, []
    monkeypatch.setattr("atelier.train.loss_scale.GROWTH_STEPS", 6)

    def overflows(self: Trainer, step: int, loss_scale: LossScale) -> Any:
        total = accumulate(self, step, loss_scale)
        if step % 10 == 5:
            self.adapters.masters[0].grad = torch.full_like(self.adapters.masters[0], float("inf"))
        return total

    monkeypatch.setattr(Trainer, "_accumulate", overflows)
    for step in range(40):
        result = trainer.train_step(step, scale)
        scale = result.loss_scale
        values.append(scale.numbers()[0])
        assert result.finite
    assert values[5] == LARGEST / 2 and values[15] >= LARGEST / 4 and values[-1] >= LARGEST / 2
    assert all(master.isfinite().all() for master in trainer.adapters.masters)
