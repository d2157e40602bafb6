"""Losses other than the mean squared error, and noise levels within limits, against the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from kit.training import scheduler_config

from atelier.train.flow_objective import FlowObjective, squeezed
from atelier.train.objective import DiffusionObjective
from atelier.train.pixel_loss import PixelLoss
from atelier.train.request.recipe import LossConfig

CPU = torch.device("cpu")
T = torch.tensor([10, 600])


def _c(schedule: str, least: float, t: int, alpha: float) -> float:
    if schedule == "exponential":
        return math.exp(math.log(least) * t / 1000)
    if schedule == "snr":
        return (1 - least) / (1 + math.sqrt((1 - alpha) / alpha)) ** 2 + least
    return least


@pytest.mark.parametrize("schedule", ["constant", "exponential", "snr"])
@pytest.mark.parametrize("loss", ["huber", "smooth_l1"])
def test_pseudo_huber_follows_the_paper(loss: str, schedule: str) -> None:
    stream = torch.Generator().manual_seed(1)
    prediction, target = (torch.randn(2, 4, 8, 8, generator=stream) for _ in range(2))
    options = LossConfig(loss=loss, huber_c=0.2, huber_schedule=schedule)
    objective = DiffusionObjective.of(scheduler_config(), CPU, pixel_loss=PixelLoss(options))
    expected = 0.0
    for i in range(2):
        c = _c(schedule, 0.2, int(T[i]), objective.alphas_cumprod[T[i]].item())
        root = ((prediction[i] - target[i]).square() + c * c).sqrt() - c
        expected += (2 * root * (c if loss == "huber" else 1)).mean().item() / 2
    found = objective.loss(prediction, target, T, weights=torch.ones(2))
    assert found.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(objective.errors(prediction, target, T), (prediction - target).square().mean((1, 2, 3)))


def test_few_large_errors_weigh_less() -> None:
    target = torch.zeros(1, 4, 8, 8)
    small, large = target + 0.01, target.clone()
    large[0, 0, 0, 0] = 50.0
    plain, huber = FlowObjective(), FlowObjective(pixel_loss=PixelLoss(LossConfig(loss="huber")))

    def ratio(objective: FlowObjective) -> float:
        losses = [objective.loss(prediction, target, torch.tensor([0.5]), weights=torch.ones(1)).item()
                  for prediction in (large, small)]
        return losses[0] / losses[1]

    assert ratio(huber) < ratio(plain) / 50


def test_a_flow_model_without_any_signal_has_a_finite_loss() -> None:
    objective = FlowObjective(pixel_loss=PixelLoss(LossConfig(loss="huber")))
    ones = torch.ones(1, 4, 8, 8)
    assert objective.loss(ones, 0 * ones, torch.tensor([1.0]), weights=torch.ones(1)).isfinite()


def test_only_timesteps_within_the_limits_are_trained_and_validated() -> None:
    stream = torch.Generator().manual_seed(0)
    objective = DiffusionObjective.of(scheduler_config(), CPU, limits=(200, 210))
    assert set(objective.draw_levels(500, stream).tolist()) == set(range(200, 210))
    assert objective.fixed_levels(5) == [201, 203, 205, 207, 209]
    whole = DiffusionObjective.of(scheduler_config(), CPU)
    assert {whole.draw_levels(20_000, stream).min().item(), whole.draw_levels(20_000, stream).max().item()} == {0, 999}


def test_flow_levels_are_squeezed_into_the_limits() -> None:
    found = squeezed(torch.tensor([0.0, 0.5, 1.0]), (250, 750))
    torch.testing.assert_close(found, torch.tensor([0.25, 0.5, 0.75]))
