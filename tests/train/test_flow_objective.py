"""Flow matching against diffusers' scheduler and the papers' formulas, and a network that learns by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from kit.training import MemorySet, tiny_unet
from kit.training_loop import QUIET, request
from torch import Tensor, nn

from atelier.errors import AtelierError
from atelier.lora.file import load_lora
from atelier.progress import Progress
from atelier.train.flow_objective import FlowObjective, shift_for
from atelier.train.loop import Loop
from atelier.train.request.levels import LevelConfig
from atelier.train.request.lora import TARGETS, LoraConfig
from atelier.train.request.recipe import LossConfig
from atelier.train.run_folder import RunFolder
from atelier.train.trainer import Trainer

CPU = torch.device("cpu")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 16, 4, 4), (3, 16, 1, 4, 4)])
def test_noising_is_that_of_diffusers_and_the_target_its_velocity(shape: tuple[int, ...]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    latents, noise, objective = normal(*shape), normal(*shape, seed=1), FlowObjective()
    picked = torch.tensor([3, 400, 990])
    noisy = objective.noisy(latents, noise, scheduler.sigmas[picked])
    torch.testing.assert_close(noisy, scheduler.scale_noise(latents, scheduler.timesteps[picked], noise))
    # Along the line x moves by the target: dx/dσ by differences.
    levels = torch.tensor([0.2, 0.5, 0.8])
    step = (objective.noisy(latents, noise, levels + 1e-3) - objective.noisy(latents, noise, levels)) / 1e-3
    torch.testing.assert_close(step, objective.target(latents, noise, levels), rtol=1e-2, atol=1e-2)


def test_the_loss_is_the_plain_mean_squared_error_of_what_counts() -> None:
    prediction, target = normal(2, 16, 1, 4, 4), normal(2, 16, 1, 4, 4, seed=1)
    objective, levels, ones = FlowObjective(), torch.tensor([0.1, 0.9]), torch.ones(2)
    assert objective.loss(prediction, target, levels, weights=ones).item() == pytest.approx(
        torch.nn.functional.mse_loss(prediction, target).item(), rel=1e-6)
    mask = torch.zeros(2, 1, 1, 4, 4)
    mask[..., :2] = 1
    assert objective.loss(prediction, target, levels, weights=ones, mask=mask).item() == pytest.approx(
        torch.nn.functional.mse_loss(prediction[..., :2], target[..., :2]).item(), rel=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_levels_follow_their_distributions(shift: float) -> None:
    """Quantiles: of a logit-normal number the sigmoid of the normal's, and the shift moves each."""
    stream, parts = torch.Generator().manual_seed(0), torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    moved = lambda sigma: shift * sigma / (1 + (shift - 1) * sigma)  # noqa: E731
    uniform = FlowObjective(distribution="uniform", shift=shift).draw_levels(40_000, stream)
    torch.testing.assert_close(uniform.quantile(parts), moved(parts), atol=0.01, rtol=0)
    logit = FlowObjective(mean=0.5, spread=2.0, shift=shift).draw_levels(40_000, stream)
    expected = moved(torch.sigmoid(0.5 + 2.0 * torch.special.ndtri(parts)))
    torch.testing.assert_close(logit.quantile(parts), expected, atol=0.015, rtol=0)


def test_levels_of_validation_are_shifted_as_diffusers_shifts() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[0.875, 0.625, 0.375, 0.125])
    got = FlowObjective(shift=3.0).fixed_levels(4)
    assert got[::-1] == pytest.approx(scheduler.sigmas[:4].tolist(), abs=1e-6)


@pytest.mark.parametrize("tokens", [256, 1024, 4096, 8192])
def test_the_shift_by_resolution_is_that_of_the_pipelines(tokens: int) -> None:
    assert shift_for(tokens) == pytest.approx(math.exp(calculate_shift(tokens)))


@pytest.mark.parametrize(("values", "field"), [({"distribution": "beta"}, "distribution"), ({"shift": 0.0}, "shift"),
                                               ({"spread": 0.0}, "spread"), ({"mean": float("nan")}, "mean")])
def test_values_out_of_range_are_named(values: dict[str, Any], field: str) -> None:
    with pytest.raises(AtelierError, match=field):
        FlowObjective(**values)


@dataclass(frozen=True)
class FlowUNet:
    """A small network of a flow model with another condition's name: nothing but `Denoiser` is known of it."""

    unet: nn.Module
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    encodes_captions: bool = False
    uncapturable: str = ""

    @property
    def network(self) -> nn.Module:
        return self.unet

    @property
    def components(self) -> Mapping[str, nn.Module]:
        return {"unet": self.unet}

    def adapted_layers(self, config: LoraConfig) -> Mapping[str, str]:
        return {"unet": TARGETS[config.targets]}

    def objective(self, loss: LossConfig, levels: LevelConfig) -> FlowObjective:
        return FlowObjective(shift=2.0)

    def predict(self, network: Callable[..., Any], noisy: Tensor, levels: Tensor,
                conditions: Sequence[Mapping[str, Tensor]], captions: tuple[str, ...]) -> Tensor:
        return network(noisy, levels * 1000, torch.stack([row["words"] for row in conditions]), return_dict=False)[0]


class Words(MemorySet):
    """Conditions under another name and of another length than CLIP's."""

    def text(self, index: int, variant: int) -> dict[str, Tensor]:
        return {"words": super().text(index, variant)["embeds"][:31]}

    def empty_text(self) -> dict[str, Tensor]:
        return {"words": super().empty_text()["embeds"][:31]}


def test_a_flow_model_learns_four_pictures(tmp_path: Path) -> None:
    options = dict(QUIET, monitor="validation", validate_every=50, learning_rate=1e-2, batch_size=4, patience=99)
    config = request(dict(rank=8, alpha=16, targets="attention_ff_conv"), options, steps=100)
    trainer = Trainer(FlowUNet(tiny_unet()), Words(MemorySet.of(4).items), config)
    frozen = {name: value.clone() for name, value in trainer.denoiser.network.named_parameters()
              if not value.requires_grad}
    before = trainer.validate()
    loop = Loop(trainer, RunFolder(tmp_path), Progress(), metadata=lambda step: {})
    assert loop.run().status == "complete"
    assert loop.state.early_stopping.best < 0.5 * before
    assert all(torch.equal(value, frozen[name]) for name, value in trainer.denoiser.network.named_parameters()
               if name in frozen)
    assert load_lora(RunFolder(tmp_path).last)
