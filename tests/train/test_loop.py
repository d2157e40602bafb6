"""Every way a run can go: learning, stopping early, being interrupted, resumed, failing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from kit.training import MemorySet, denoiser, scheduler_config
from kit.training_loop import QUIET, StopAt, loop_in, request, same, train_steps
from PIL import Image

from atelier.errors import AtelierError
from atelier.lora.file import load_lora
from atelier.progress import Interrupted, Progress
from atelier.train.early_stopping import EarlyStopping
from atelier.train.loss_scale import LossScale
from atelier.train.run_folder import RunFolder
from atelier.train.state_file import load_state
from atelier.train.trainer import StepResult, Trainer


def test_training_learns(tmp_path: Path) -> None:
    options = dict(QUIET, monitor="validation", validate_every=20, learning_rate=1e-2, batch_size=4)
    loop = loop_in(tmp_path, request(dict(rank=8, alpha=16, targets="attention_ff_conv"), options, steps=120))
    assert loop.run().status == "complete"
    first, *_, last = [loss for _, loss in loop.state.history.validation]
    assert last < 0.7 * first
    assert loop.state.early_stopping.best == min(loss for _, loss in loop.state.history.validation)


@pytest.mark.gpu
@pytest.mark.parametrize("extra", [
    {}, {"gradient_accumulation": 2, "schedule": "cosine", "warmup_steps": 3},
    {"ema_decay": 0.9, "caption_dropout": 0.5}])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path, extra: dict) -> None:
    options = dict(QUIET, monitor="validation", validate_every=4, patience=99, noise_offset=0.1, **extra)
    config = request(dict(rank=4, dropout=0.2), options, steps=14, seed=5)
    data = MemorySet.of(5, flips=True, captions=2)
    whole = loop_in(tmp_path / "whole", config, data=data)
    whole.run()
    with pytest.raises(Interrupted):
        loop_in(tmp_path / "cut", config, StopAt(interrupt=15), data).run()  # eight of them in a validation
    with pytest.raises(Interrupted):
        loop_in(tmp_path / "cut", config, StopAt(interrupt=12), data).run()
    resumed = loop_in(tmp_path / "cut", config, data=data)
    assert resumed.run().began_step == 9
    one, other = whole.trainer, resumed.trainer
    for a, b in ((one.adapters.masters, other.adapters.masters), (one.average or [], other.average or [])):
        assert len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert whole.state == resumed.state
    assert same(whole.folder.best, resumed.folder.best) and same(whole.folder.last, resumed.folder.last)
    assert _optimizer(one).keys() == _optimizer(other).keys()
    assert all(torch.equal(value, _optimizer(other)[key]) for key, value in _optimizer(one).items())


def _optimizer(trainer: Trainer) -> dict[tuple, torch.Tensor]:
    return {(i, k): v for i, s in trainer.optimizer.state_dict()["state"].items() for k, v in s.items()}


def test_the_user_can_stop_and_keep(tmp_path: Path) -> None:
    loop = loop_in(tmp_path, request(dict(rank=4), QUIET, steps=10), StopAt(stop=4))
    assert loop.run().status == "stopped by user"
    assert loop.state.step == 3 and load_lora(RunFolder(tmp_path).last)


def test_early_stopping_ends_after_patience_and_keeps_the_best(tmp_path: Path) -> None:
    # A far too high rate makes validation worse soon.
    options = dict(QUIET, monitor="validation", validate_every=2, patience=3, learning_rate=0.3)
    loop = loop_in(tmp_path, request(dict(rank=4), options, steps=200))
    assert loop.run().status == "stopped early"
    validations = loop.state.history.validation
    best_step, _ = min(validations, key=lambda validation: validation[1])
    assert loop.state.early_stopping.best_step == best_step == validations[-4][0]
    until_best = loop_in(tmp_path / "other", request(dict(rank=4), options, steps=best_step))
    until_best.run()
    assert same(loop.folder.best, until_best.folder.last)


def test_the_recipe_stops_on_the_epochs_mean(tmp_path: Path) -> None:
    """The published loop: best if mean < best, else count; end when the count reaches two."""
    options = dict(QUIET, monitor="epoch", patience=2, learning_rate=0.2, batch_size=1)
    loop = loop_in(tmp_path, request(dict(rank=4), options, epochs=60))
    status = loop.run().status
    means = [mean for _, mean in loop.state.history.epochs]
    best, count, epochs = float("inf"), 0, 0
    for mean in means:
        epochs += 1
        best, count = (mean, 0) if mean < best else (best, count + 1)
        if count >= 2:
            break
    assert status == "stopped early" and epochs == len(means)
    losses = loop.state.history.losses
    assert means[1] == pytest.approx(sum(losses[8:16]) / 8)


def test_an_improvement_below_min_delta_does_not_count() -> None:
    early_stopping = EarlyStopping(patience=2, min_delta=0.1).update(1.0, 1).update(0.95, 2)
    assert (early_stopping.best, early_stopping.best_step, early_stopping.done) == (1.0, 1, False)
    assert early_stopping.update(0.94, 3).done and not early_stopping.update(0.8, 3).done
    assert not EarlyStopping(patience=0).update(1.0, 1).update(2.0, 2).done


def test_random_state_is_left_as_found(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    loop_in(tmp_path, request(dict(rank=4, dropout=0.5), QUIET, steps=2)).run()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"half a file")
    loop = loop_in(tmp_path, request(dict(rank=4), QUIET, steps=2))
    with pytest.raises(AtelierError, match=r"state\.safetensors"):
        load_state(tmp_path / "state.safetensors", loop.trainer)


def test_checkpoints_appear_every_n_steps(tmp_path: Path) -> None:
    loop = loop_in(tmp_path, request(dict(rank=4), dict(QUIET, save_every=3), steps=7))
    loop.run()
    assert [p.name for p in sorted(tmp_path.glob("step-*"))] == ["step-000003.safetensors", "step-000006.safetensors"]
    assert loop.state.step == 7


def test_progress_reports_every_step_on_the_cpu(tmp_path: Path) -> None:
    progress = StopAt()
    loop_in(tmp_path, request(dict(rank=4), QUIET, steps=5), progress).run()
    assert [m["step"] for m in progress.measured if "loss" in m] == [1, 2, 3, 4, 5]
    # Eight pictures in batches of two are four steps.
    assert [m["epoch"] for m in progress.measured if "loss" in m] == [0.25, 0.5, 0.75, 1, 1.25]


def test_a_slow_first_step_does_not_stay_in_the_rate(tmp_path: Path) -> None:
    """As when it compiles."""
    now, progress = [0.0], StopAt()
    loop = loop_in(tmp_path, request(dict(rank=4), QUIET, steps=5), progress, clock=lambda: now[0])
    plain = loop.trainer.train_step

    def timed(step: int, loss_scale: LossScale) -> StepResult:
        now[0] += 0.1 if step else 300
        return plain(step, loss_scale)

    loop.trainer.train_step = timed
    loop.run()
    rates = [values["steps_per_second"] for values in progress.measured if "loss" in values]
    assert rates == pytest.approx([1 / 300, 10, 10, 10, 10])


def test_pictures_and_validations_are_not_in_the_rate(tmp_path: Path) -> None:
    now, progress = [0.0], StopAt()
    options = dict(QUIET, sample_every=2, monitor="validation", patience=9, validate_every=2)

    def draw(step: int, weights: Any = None) -> None:
        now[0] += 500

    loop = loop_in(tmp_path, request(dict(rank=4), options, steps=8), progress, clock=lambda: now[0], draw=draw)
    plain, validate = loop.trainer.train_step, loop.trainer.validate

    def timed(step: int, loss_scale: LossScale) -> StepResult:
        now[0] += 0.5
        return plain(step, loss_scale)

    def slow(check: Any) -> float:
        now[0] += 300
        return validate(check)

    loop.trainer.train_step, loop.trainer.validate = timed, slow
    loop.run()
    assert [values["steps_per_second"] for values in progress.measured if "loss" in values] == pytest.approx([2] * 8)


class Pressing(Progress):
    """Asks for a sample after some steps; notes what it is shown."""

    def __init__(self, *steps: int) -> None:
        self.steps, self.step = set(steps), 0
        self.seen: list[Any] = []

    def measure(self, values) -> None:
        self.step = int(values["step"])

    def sample_requested(self) -> bool:
        asked = any(step <= self.step for step in self.steps)
        self.steps = {step for step in self.steps if step > self.step}
        return asked

    def preview(self, image) -> None:
        self.seen.append((self.step, image.getpixel((0, 0))))


def test_one_picture_answers_a_request_and_a_due_sample(tmp_path: Path) -> None:
    drawn: list[int] = []
    loop = loop_in(tmp_path, request(dict(rank=4), dict(QUIET, sample_every=4), steps=8), Pressing(2, 4),
                   draw=lambda step, weights=None: drawn.append(step))
    loop.run()
    assert drawn == [2, 4, 8]


def test_a_resumed_run_shows_its_earlier_pictures(tmp_path: Path) -> None:
    config = request(dict(rank=4), dict(QUIET, sample_every=1), steps=40)
    with pytest.raises(Interrupted):
        loop_in(tmp_path, config, StopAt(interrupt=31)).run()
    folder = RunFolder(tmp_path)
    folder.sample(1).parent.mkdir()
    for step in range(1, 31):
        Image.new("L", (8, 8), step).save(folder.sample(step))
    folder.sample(29).write_bytes(b"half a picture")
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder.sample(28))
    parts = bytearray(folder.sample(28).read_bytes())
    parts[parts.rindex(b"IDAT")] ^= 1  # Pillow calls this a syntax error
    folder.sample(28).write_bytes(parts)
    (folder.sample(1).parent / "step-000030 (copy).png").write_bytes(b"of the user's")
    progress = Pressing()
    loop_in(tmp_path, config, progress).run()
    assert progress.seen == [(step, step) for step in range(19, 31) if step < 28 or step == 30]


class LeftHalf(MemorySet):
    """Only the left half of each picture counts."""

    def mask(self, index: int, flip: bool) -> torch.Tensor:
        mask = torch.zeros(1, self.items[index].height, self.items[index].width)
        mask[..., :self.items[index].width // 2] = 1
        return mask


@pytest.mark.parametrize(("data", "counts"), [(MemorySet.of(12), 8), (LeftHalf(MemorySet.of(12).items), 4)])
def test_validation_is_the_mean_of_single_comparisons(data: MemorySet, counts: int) -> None:
    """Against diffusers' noise and a forward pass for each picture and timestep alone."""
    trainer = Trainer(denoiser(), data, request(dict(rank=4, dropout=0.5), dict(
        QUIET, monitor="validation", patience=9, validation_pictures=2, validation_timesteps=9), steps=5))
    train_steps(trainer, 1)
    validated = trainer.validate()
    scheduler, unet, losses = DDPMScheduler.from_config(scheduler_config()), trainer.denoiser.unet.eval(), []
    plan = replace(trainer.validation, batch_size=1)
    for use, (t,), (seed,) in plan.batches(trainer.objective.fixed_levels(9)):
        mean = data.moments(use.index, False)[0][None]
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            noisy = scheduler.add_noise(mean, noise, torch.tensor([t]))
            prediction = unet(noisy, t, data.text(use.index, 0)["embeds"][None]).sample
        losses.append(torch.nn.functional.mse_loss(prediction[..., :counts], noise[..., :counts]).item())
    assert len(losses) == len(plan.uses) * 9
    assert validated == pytest.approx(sum(losses) / len(losses), rel=1e-5)
