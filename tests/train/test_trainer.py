"""One optimiser step: gradients, their clipping and scale, noise, and the comparisons of a validation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kit.training import MemorySet, denoiser
from kit.training_loop import QUIET, request

from atelier.train.loss_scale import LossScale
from atelier.train.trainer import Trainer

pytestmark = pytest.mark.gpu


def trainer_of(dtype: torch.dtype = torch.float32, **options: Any) -> Trainer:
    torch.manual_seed(0)
    trainer = Trainer(denoiser(dtype=dtype), MemorySet.of(8), request(dict(rank=4), QUIET | options, steps=10))
    with torch.no_grad():  # an untrained LoRA has gradients in half of its matrices alone
        for master in trainer.adapters.masters:
            master.add_(0.02 * torch.randn(master.shape).to(master.device))
    trainer.adapters.sync_to_model()
    return trainer


def gradients_at_the_step(trainer: Trainer) -> list[torch.Tensor]:
    """The masters' gradients as the optimiser gets them."""
    seen: list[torch.Tensor] = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(master.grad.clone() for master in trainer.adapters.masters))
    trainer.train_step(0, trainer.initial_loss_scale)
    return seen


def norm(tensors: list[torch.Tensor]) -> float:
    return torch.cat([tensor.flatten() for tensor in tensors]).norm().item()


def test_gradients_are_clipped_to_the_norm_that_was_asked() -> None:
    free = gradients_at_the_step(trainer_of(max_grad_norm=0))
    clipped = gradients_at_the_step(trainer_of(max_grad_norm=norm(free) / 4))
    assert norm(clipped) == pytest.approx(norm(free) / 4, rel=1e-4)
    assert all(torch.allclose(a, b / 4, rtol=1e-4, atol=0) for a, b in zip(clipped, free, strict=True))


def test_the_loss_scale_leaves_the_gradients() -> None:
    """Adam hides a wrong scale, but clipping does not. In bfloat16, whose rounding no power of two changes."""
    plain, scaled = trainer_of(torch.bfloat16), trainer_of(torch.bfloat16)
    seen: list[list[torch.Tensor]] = []
    for trainer, scale in ((plain, 1.0), (scaled, 2.0 ** 10)):
        trainer._accumulate(0, LossScale.restored(scale, 0, trainer.device))
        seen.append([master.grad.clone() for master in trainer.adapters.masters])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-9) for a, b in zip(*seen, strict=True))


def test_noise_offset_moves_each_channel_by_its_own_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    """https://www.crosslabs.org/blog/diffusion-with-offset-noise: one number for each picture and channel."""
    seen: list[torch.Tensor] = []
    for offset in (0.0, 0.5):
        trainer = trainer_of(noise_offset=offset)
        plain = type(trainer.objective).noisy

        def noisy(self: Any, latents: Any, noise: torch.Tensor, t: Any, plain: Any = plain) -> torch.Tensor:
            seen.append(noise)
            return plain(self, latents, noise, t)

        with monkeypatch.context() as patched:
            patched.setattr(type(trainer.objective), "noisy", noisy)
            trainer.train_step(0, trainer.initial_loss_scale)
    moved = (seen[1] - seen[0]).flatten(2)
    assert torch.allclose(moved, moved[..., :1].expand_as(moved), atol=1e-6)
    assert len({round(value, 5) for value in moved[..., 0].flatten().tolist()}) == moved[..., 0].numel()


def test_validation_compares_at_the_middle_of_equal_parts_with_noise_of_their_own() -> None:
    trainer = trainer_of(monitor="validation", patience=3, validation_pictures=4, validation_timesteps=8)
    batches = list(trainer.validation.batches(trainer.objective.fixed_levels(8)))
    timesteps = {use.index: [] for use, _, _ in batches}
    for use, steps, _ in batches:
        timesteps[use.index] += steps
    assert len(timesteps) == 4
    assert all(steps == [62, 187, 312, 437, 562, 687, 812, 937] for steps in timesteps.values())
    seeds = [seed for _, _, seeds in batches for seed in seeds]
    assert len(set(seeds)) == len(seeds) == 32


def test_a_first_step_that_fails_leaves_no_state_of_the_optimiser() -> None:
    trainer = trainer_of()
    trainer.train_step(0, trainer.initial_loss_scale)
    trainer.drop_step(1)
    assert trainer.optimizer.state, "the state of the steps before is kept"
    trainer.drop_step(0)
    assert not trainer.optimizer.state
