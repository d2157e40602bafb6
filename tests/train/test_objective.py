"""The objective against diffusers' scheduler and a few lines of plain arithmetic."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler
from kit.training import scheduler_config

from atelier.errors import AtelierError
from atelier.train.objective import DiffusionObjective

CPU = torch.device("cpu")


def _batch(size: int = 6) -> tuple[torch.Tensor, ...]:
    stream = torch.Generator().manual_seed(3)
    latents, noise, prediction = (torch.randn(size, 4, 8, 8, generator=stream) for _ in range(3))
    return latents, noise, prediction, torch.tensor([0, 1, 250, 500, 998, 999])[:size]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noising_and_target_are_those_of_diffusers(kind: str) -> None:
    latents, noise, _, t = _batch()
    scheduler = DDPMScheduler.from_config(scheduler_config(kind))
    objective = DiffusionObjective.of(scheduler_config(kind), CPU)
    torch.testing.assert_close(objective.noisy(latents, noise, t), scheduler.add_noise(latents, noise, t))
    expected = noise if kind == "epsilon" else scheduler.get_velocity(latents, noise, t)
    torch.testing.assert_close(objective.target(latents, noise, t), expected)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_loss_is_the_plain_mean_squared_error(kind: str) -> None:
    latents, noise, prediction, t = _batch()
    scheduler = DDPMScheduler.from_config(scheduler_config(kind))
    target = noise if kind == "epsilon" else scheduler.get_velocity(latents, noise, t)
    objective = DiffusionObjective.of(scheduler_config(kind), CPU)
    loss = objective.loss(prediction, objective.target(latents, noise, t), t, weights=torch.ones(6))
    torch.testing.assert_close(loss, torch.nn.functional.mse_loss(prediction, target))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_follow_the_paper(kind: str) -> None:
    latents, noise, prediction, t = _batch()
    objective = DiffusionObjective.of(scheduler_config(kind), CPU, min_snr_gamma=5.0)
    target = objective.target(latents, noise, t)
    expected = 0.0
    for i in range(6):
        level = objective.alphas_cumprod[t[i]].item()
        snr = level / (1 - level)
        weight = min(snr, 5.0) / (snr if kind == "epsilon" else snr + 1)
        expected += weight * (prediction[i] - target[i]).square().mean().item() / 6
    loss = objective.loss(prediction, target, t, weights=torch.ones(6))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_mask_and_a_weight_choose_what_counts() -> None:
    _, noise, prediction, t = _batch(2)
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :4] = 1
    objective = DiffusionObjective.of(scheduler_config(), CPU)
    loss = objective.loss(prediction, noise, t, weights=torch.tensor([1.0, 0.0]), mask=mask)
    expected = (prediction[0, :, :4] - noise[0, :, :4]).square().mean() / 2
    torch.testing.assert_close(loss, expected)


def test_zero_terminal_snr_stays_finite() -> None:
    config = scheduler_config("v_prediction") | {"rescale_betas_zero_snr": True}
    latents, noise, prediction, _ = _batch()
    t = torch.full((6,), 999)
    objective = DiffusionObjective.of(config, CPU, min_snr_gamma=5.0)
    assert objective.alphas_cumprod[999] < 1e-6
    assert objective.loss(prediction, objective.target(latents, noise, t), t, weights=torch.ones(6)).isfinite()


def test_at_zero_signal_the_epsilon_weight_is_its_limit() -> None:
    objective = DiffusionObjective(torch.tensor([0.9, 0.5, 0.0]), "epsilon", min_snr_gamma=5.0)
    prediction, target = torch.ones(3, 4, 8, 8), torch.zeros(3, 4, 8, 8)
    each = [objective.loss(prediction[i:i + 1], target[i:i + 1], torch.tensor([i]), weights=torch.ones(1)).item()
            for i in range(3)]
    assert each == pytest.approx([5 / 9, 1, 1])


def test_another_prediction_type_is_refused_by_name() -> None:
    with pytest.raises(AtelierError, match="sample"):
        DiffusionObjective.of(scheduler_config("sample"), CPU)
