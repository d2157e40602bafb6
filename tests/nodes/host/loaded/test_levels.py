"""Noise levels that are drawn for the host's models: within limits, moved by a shift, and below σ = ∞ of Cosmos."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.pack import pack_module

pytestmark = pytest.mark.host


def objective(pack: ModuleType, process: str, **levels: Any) -> Any:
    """With a process of the host's, at its defaults."""
    import comfy.model_sampling as processes

    class Flow(processes.ModelSamplingDiscreteFlow, processes.CONST):
        pass

    class Cosmos(processes.ModelSamplingCosmosRFlow, processes.COSMOS_RFLOW):
        pass

    class Discrete(processes.ModelSamplingDiscrete, processes.EPS):
        pass

    sampling = {"flow": Flow, "cosmos": Cosmos, "discrete": Discrete}[process]()
    config = pack_module(pack, "atelier.train.request.levels").LevelConfig(**levels)
    return pack_module(pack, "nodes.host.loaded.objective").HostObjective(sampling, config, 8)


def drawn(found: Any) -> torch.Tensor:
    return found.draw_levels(400, torch.Generator().manual_seed(0), (64, 64))


def shares(process: str, sigma: torch.Tensor) -> torch.Tensor:
    """Share of noise, 0 to 1: Cosmos counts σ = t / (1 − t)."""
    return sigma / (1 + sigma) if process == "cosmos" else sigma


@pytest.mark.parametrize("process", ["flow", "cosmos"])
@pytest.mark.parametrize("shift", [{}, {"level_shift": "resolution"}, {"level_shift": "value", "shift_value": 3.0}])
def test_levels_stay_within_their_limits(pack: ModuleType, process: str, shift: dict[str, Any]) -> None:
    found = objective(pack, process, min_timestep=200, max_timestep=600, **shift)
    for sigma in (drawn(found), torch.tensor(found.fixed_levels(8))):
        part = shares(process, sigma)
        assert part.min() >= 0.2 - 1e-6 and part.max() <= 0.6 + 1e-6
    assert shares(process, drawn(found)).max() - shares(process, drawn(found)).min() > 0.2, "they are spread"


@pytest.mark.parametrize("process", ["flow", "cosmos"])
def test_a_shift_by_value_moves_levels_by_its_formula(pack: ModuleType, process: str) -> None:
    """Esser et al. 2024, section 5.3.2: t becomes s t / (1 + (s − 1) t)."""
    plain, moved = (shares(process, drawn(objective(pack, process, level_shift="value", shift_value=value)))
                    for value in (1.0, 3.0))
    inside = moved < moved.max()  # the host's greatest level cuts the others
    assert inside.sum() > 300
    torch.testing.assert_close(moved[inside], (3 * plain / (1 + 2 * plain))[inside], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limits", [(0, 1000), (250, 500)])
def test_discrete_models_are_trained_at_levels_of_their_schedule(pack: ModuleType, limits: tuple[int, int]) -> None:
    found = objective(pack, "discrete", min_timestep=limits[0], max_timestep=limits[1])
    trained = found.sampling.sigmas[slice(*limits)]
    assert found.is_discrete and torch.isin(drawn(found), trained).all()
    assert drawn(found).unique().numel() > 100
    width = limits[1] - limits[0]
    assert found.fixed_levels(4) == [float(trained[width * part // 8]) for part in (1, 3, 5, 7)]


def test_the_hosts_own_levels_are_whole_without_limits(pack: ModuleType) -> None:
    found = objective(pack, "cosmos")
    sigma = drawn(found)
    assert sigma.min() >= found.sampling.sigma_min and sigma.max() <= found.sampling.sigma_max
    assert sigma.max() > 3, "limits would cut it to 1"


@pytest.mark.parametrize("process", ["flow", "cosmos", "discrete"])
def test_a_loss_is_told_how_much_noise_a_picture_has(pack: ModuleType, process: str) -> None:
    """Noise for each part of the picture, and the place on the way from 0 to 1, which huber_schedule goes by."""
    told: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(*given: Any) -> torch.Tensor:
        told.append(given[3:])
        return torch.zeros(2)

    found = replace(objective(pack, process), pixel_loss=note)
    places = torch.tensor([0.25, 0.5])
    ratios = {"flow": places / (1 - places), "cosmos": places / (1 - places),
              "discrete": found.sampling.sigmas[[250, 500]] if process == "discrete" else None}[process]
    same = torch.zeros(2, 4, 2, 2)
    found.loss(same, same, places if process == "flow" else ratios, weights=torch.ones(2))
    (ratio, place), = told
    torch.testing.assert_close(ratio, ratios)
    torch.testing.assert_close(place.float(), places)
