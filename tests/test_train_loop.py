"""Every way a run can go: learning, stopping early, being interrupted, resumed, failing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from kit.training import MemorySet, parts, scheduler_config
from PIL import Image
from safetensors.torch import load_file

from atelier.errors import AtelierError
from atelier.lora.file import load_lora
from atelier.progress import Interrupted, Monitor
from atelier.train.config import LoraConfig, TrainConfig, TrainingOptions
from atelier.train.loop import Loop
from atelier.train.state import load_state
from atelier.train.stopping import Stopper
from atelier.train.store import RunStore
from atelier.train.trainer import Trainer

QUIET = TrainingOptions(learning_rate=5e-3, batch_size=2, monitor="off", patience=0, schedule="constant")


class StopAt(Monitor):
    """Interrupts when it is asked for the n-th time; may ask to end training instead."""

    def __init__(self, interrupt: int = -1, stop: int = -1) -> None:
        self.interrupt, self.stop, self.asked = interrupt, stop, 0
        self.measured: list[dict] = []

    def check(self) -> None:
        self.asked += 1
        if self.asked == self.interrupt:
            raise Interrupted

    def stop_requested(self) -> bool:
        return self.asked == self.stop

    def measure(self, values) -> None:
        self.measured.append(dict(values))


def _loop(folder: Path, config: TrainConfig, monitor: Monitor | None = None, data: MemorySet | None = None,
          **more: Any) -> Loop:
    trainer = Trainer(parts(), data or MemorySet.of(8), config)
    return Loop(trainer, RunStore(folder), monitor or Monitor(), metadata=lambda step: {"step": str(step)}, **more)


def test_training_learns(tmp_path: Path) -> None:
    options = replace(QUIET, monitor="validation", validate_every=20, learning_rate=1e-2, batch_size=4)
    loop = _loop(tmp_path, TrainConfig(LoraConfig(rank=8, alpha=16, targets="attention_ff_conv"), options, steps=120))
    assert loop.run() == "complete"
    first, *_, last = [loss for _, loss in loop.trainer.history.validation]
    assert last < 0.7 * first
    assert loop.trainer.stopper.best == min(loss for _, loss in loop.trainer.history.validation)


@pytest.mark.parametrize("extra", [
    {}, {"gradient_accumulation": 2, "schedule": "cosine", "warmup_steps": 3},
    {"ema_decay": 0.9, "caption_dropout": 0.5}])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path, extra: dict) -> None:
    options = replace(QUIET, monitor="validation", validate_every=4, patience=99, noise_offset=0.1, **extra)
    config = TrainConfig(LoraConfig(rank=4, dropout=0.2), options, steps=14, seed=5)
    data = MemorySet.of(5, flips=True, captions=2)
    whole = _loop(tmp_path / "whole", config, data=data)
    whole.run()
    with pytest.raises(Interrupted):
        _loop(tmp_path / "cut", config, StopAt(interrupt=15), data).run()  # eight of them in a validation
    with pytest.raises(Interrupted):
        _loop(tmp_path / "cut", config, StopAt(interrupt=12), data).run()
    resumed = _loop(tmp_path / "cut", config, data=data)
    resumed.run()
    assert resumed.began_step == 9
    one, other = whole.trainer, resumed.trainer
    for a, b in ((one.adapters.masters, other.adapters.masters), (one.average or [], other.average or []),
                 (one.best, other.best)):
        assert len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert one.history == other.history and one.stopper == other.stopper
    assert _optimizer(one).keys() == _optimizer(other).keys()
    assert all(torch.equal(value, _optimizer(other)[key]) for key, value in _optimizer(one).items())


def _optimizer(trainer: Trainer) -> dict[tuple, torch.Tensor]:
    return {(i, k): v for i, s in trainer.optimizer.state_dict()["state"].items() for k, v in s.items()}


def test_an_interrupt_leaves_a_lora_of_what_was_learnt(tmp_path: Path) -> None:
    config = TrainConfig(LoraConfig(rank=4), QUIET, steps=10)
    with pytest.raises(Interrupted):
        _loop(tmp_path, config, StopAt(interrupt=4)).run()
    reference = _loop(tmp_path / "other", config)
    for _ in range(3):
        reference.trainer.train_step()
    kept, expected = load_lora(RunStore(tmp_path).last), reference.trainer.adapters.weights()
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name].up, expected[name].up) for name in kept)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_validation_can_be_interrupted_and_is_made_up_for(tmp_path: Path, ema: float) -> None:
    options = replace(QUIET, monitor="validation", validate_every=3, patience=99, ema_decay=ema, save_every=3)
    config, data = TrainConfig(LoraConfig(rank=4), options, steps=7), MemorySet.of(4)
    whole = _loop(tmp_path / "whole", config, data=data)
    whole.run()
    cut = _loop(tmp_path / "cut", config, StopAt(interrupt=6), data)  # the third check within the first look
    with pytest.raises(Interrupted):
        cut.run()
    assert (cut.trainer.step, cut.trainer.history.validation) == (3, [])
    assert _same(RunStore(tmp_path / "cut").last, RunStore(tmp_path / "whole").at(3))
    resumed = _loop(tmp_path / "cut", config, data=data)
    resumed.run()
    assert resumed.trainer.history == whole.trainer.history
    assert resumed.trainer.stopper == whole.trainer.stopper
    assert {p.name for p in (tmp_path / "cut").iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}
    assert all(_same(tmp_path / "cut" / p.name, p) for p in (tmp_path / "whole").glob("[!s]*.safetensors"))


def test_a_validation_asks_before_each_pass() -> None:
    trainer = Trainer(parts(), MemorySet.of(40), TrainConfig(LoraConfig(rank=4), replace(
        QUIET, monitor="validation", patience=9, validation_timesteps=50), steps=5))
    passes, unet, since = [0], trainer.parts.unet, []
    plain = unet.forward

    def counted(*args: Any, **options: Any) -> Any:
        passes[0] += 1
        return plain(*args, **options)

    unet.forward = counted
    trainer.validate(lambda: since.append(passes[0]))
    assert since == list(range(passes[0])) and passes[0] == 4 * 13


def test_an_interrupt_leaves_a_running_average_in_its_place() -> None:
    trainer = Trainer(parts(), MemorySet.of(4), TrainConfig(LoraConfig(rank=4), replace(
        QUIET, ema_decay=0.9), steps=5))
    trainer.train_step()
    before = trainer.adapters.snapshot()
    with pytest.raises(Interrupted):
        trainer.validate(StopAt(interrupt=2).check)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.adapters.snapshot(), strict=True))


def test_an_interrupt_in_a_sample_keeps_the_lora_and_the_picture_is_made_up_for(tmp_path: Path) -> None:
    config, store = TrainConfig(LoraConfig(rank=4), replace(QUIET, sample_every=4), steps=8), RunStore(tmp_path)

    def run(monitor: Monitor, *, interrupted: bool) -> list[int]:
        drawn: list[int] = []

        def draw() -> None:
            monitor.check()
            drawn.append(loop.trainer.step)
            store.sample(loop.trainer.step).parent.mkdir(exist_ok=True)
            store.sample(loop.trainer.step).write_bytes(b"a picture")

        loop = _loop(tmp_path, config, monitor, draw=draw)
        if interrupted:
            with pytest.raises(Interrupted):
                loop.run()
        else:
            loop.run()
        return drawn

    reference = _loop(tmp_path / "whole", replace(config, options=replace(config.options, save_every=4)))
    reference.run()
    assert run(StopAt(interrupt=5), interrupted=True) == []
    assert _same(store.last, reference.store.at(4))
    # Once made up for, no picture is drawn twice; the last one is due when no step is left.
    assert run(StopAt(interrupt=6), interrupted=True) == [4]
    assert _same(store.last, reference.store.last)
    assert run(Monitor(), interrupted=False) == [8]
    assert run(Monitor(), interrupted=False) == []


def _same(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Phases(Monitor):
    """Notes what is said in each phase."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def advance(self, done: int, text: str = "") -> None:
        self.said.append(text)


def test_a_sample_that_does_not_fit_in_memory_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    def draw() -> None:
        tried.append(loop.trainer.step)
        if len(tried) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    monitor = Phases()
    loop = _loop(tmp_path, TrainConfig(LoraConfig(rank=4), replace(QUIET, sample_every=2), steps=6), monitor, draw=draw)
    with caplog.at_level("WARNING", "atelier"):
        assert loop.run() == "complete"
    assert (tried, loop.undrawn) == ([2, 4, 6], [2, 4])
    assert [record.args for record in caplog.records if record.name == "atelier"] == [(2,), (4,)]
    assert sum("no memory for a sample" in text for text in monitor.said) == 2
    reference = _loop(tmp_path / "other", TrainConfig(LoraConfig(rank=4), QUIET, steps=6))
    reference.run()
    assert _same(loop.store.last, reference.store.last)


def test_running_out_of_memory_in_a_validation_keeps_the_work(tmp_path: Path) -> None:
    options = replace(QUIET, monitor="validation", validate_every=2, patience=9)
    loop = _loop(tmp_path, TrainConfig(LoraConfig(rank=4), options, steps=6))

    def full(check: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    loop.trainer.validate = full
    with pytest.raises(AtelierError, match=r"validating after step 2.*batch size"):
        loop.run()
    reference = _loop(tmp_path / "other", TrainConfig(LoraConfig(rank=4), QUIET, steps=2))
    reference.run()
    assert _same(loop.store.last, reference.store.last) and loop.store.state.exists()


def test_float16_writes_no_untouched_lora(tmp_path: Path) -> None:
    """So steep that the first steps only find the loss scale."""
    options = replace(QUIET, precision="fp16", monitor="validation", validate_every=1, patience=99, save_every=1)
    config = TrainConfig(LoraConfig(rank=4, alpha=4096), options, steps=10)

    def loop(monitor: Monitor) -> Loop:
        trainer = Trainer(parts(dtype=torch.float16), MemorySet.of(1), config)
        return Loop(trainer, RunStore(tmp_path), monitor, metadata=lambda step: {"step": str(step)})

    cut = loop(StopAt(interrupt=5))  # steps 1 and 2 with two passes of validation each
    with pytest.raises(Interrupted):
        cut.run()
    assert cut.trainer.stopper.best_step == 0 and cut.trainer.best is None
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    cut = loop(StopAt(stop=3))  # after the two passes that were cut short
    with pytest.raises(AtelierError, match=r"Nothing was learnt in 2 steps.*float16"):
        cut.run()
    resumed = loop(Monitor())
    resumed.run()
    first = min(int(path.stem[-6:]) for path in tmp_path.glob("step-*"))
    assert first > 2 and resumed.trainer.history.validation[0][0] == 1
    assert resumed.trainer.stopper.best_step >= first and load_lora(RunStore(tmp_path).best)


def test_a_state_that_does_not_fit_on_the_disk_costs_no_lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, trainer: Trainer) -> None:
        raise AtelierError("The disk is full.", "Free some space.")

    monkeypatch.setattr("atelier.train.loop.save_state", full)
    with pytest.raises(AtelierError, match="disk is full"):
        _loop(tmp_path, TrainConfig(LoraConfig(rank=4), QUIET, steps=10), StopAt(interrupt=4)).run()
    assert load_lora(RunStore(tmp_path).last)


def test_an_interrupt_before_the_first_step_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        _loop(tmp_path, TrainConfig(LoraConfig(rank=4), QUIET, steps=10), StopAt(interrupt=1)).run()
    assert list(tmp_path.rglob("*")) == []


def test_the_user_can_stop_and_keep(tmp_path: Path) -> None:
    loop = _loop(tmp_path, TrainConfig(LoraConfig(rank=4), QUIET, steps=10), StopAt(stop=4))
    assert loop.run() == "stopped by user"
    assert loop.trainer.step == 3 and load_lora(RunStore(tmp_path).last)


def test_early_stopping_ends_after_patience_and_keeps_the_best(tmp_path: Path) -> None:
    # A far too high rate makes validation worse soon.
    options = replace(QUIET, monitor="validation", validate_every=2, patience=3, learning_rate=0.3)
    loop = _loop(tmp_path, TrainConfig(LoraConfig(rank=4), options, steps=200))
    assert loop.run() == "stopped early"
    looks = loop.trainer.history.validation
    best_step, _ = min(looks, key=lambda look: look[1])
    assert loop.trainer.stopper.best_step == best_step == looks[-4][0]
    kept, best = load_lora(RunStore(tmp_path).best), loop.trainer.adapters.weights(loop.trainer.best)
    assert all(torch.equal(kept[name].up, best[name].up) for name in kept)


def test_the_recipe_stops_on_the_epochs_mean(tmp_path: Path) -> None:
    """The published loop: best if mean < best, else count; end when the count reaches two."""
    options = replace(QUIET, monitor="epoch", patience=2, learning_rate=0.2, batch_size=1)
    loop = _loop(tmp_path, TrainConfig(LoraConfig(rank=4), options, epochs=60))
    status = loop.run()
    means = [mean for _, mean in loop.trainer.history.epochs]
    best, count, epochs = float("inf"), 0, 0
    for mean in means:
        epochs += 1
        best, count = (mean, 0) if mean < best else (best, count + 1)
        if count >= 2:
            break
    assert status == "stopped early" and epochs == len(means)
    losses = loop.trainer.history.losses
    assert means[1] == pytest.approx(sum(losses[8:16]) / 8)


def test_a_stopper_counts_looks_below_min_delta_as_none() -> None:
    stopper = Stopper(patience=2, min_delta=0.1).look(1.0, 1).look(0.95, 2)
    assert (stopper.best, stopper.best_step, stopper.done) == (1.0, 1, False)
    assert stopper.look(0.94, 3).done and not stopper.look(0.8, 3).done
    assert not Stopper(patience=0).look(1.0, 1).look(2.0, 2).done


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_nan_ends_the_run_and_keeps_the_last_good_weights(tmp_path: Path, ema: float) -> None:
    config = TrainConfig(LoraConfig(rank=4), replace(QUIET, ema_decay=ema), steps=10)
    loop = _loop(tmp_path, config)
    steps = iter(range(100))
    plain = loop.trainer.train_step

    def broken():
        loss, finite = plain()
        return (loss * float("nan"), torch.tensor(False)) if next(steps) == 3 else (loss, finite)

    loop.trainer.train_step = broken
    with pytest.raises(AtelierError, match="step 4") as caught:
        loop.run()
    assert "learning rate" in str(caught.value)
    reference = _loop(tmp_path / "other", config).trainer
    for _ in range(3):
        reference.train_step()
    kept, expected = load_lora(RunStore(tmp_path).last), reference.adapters.weights(reference.current)
    assert all(torch.equal(kept[name].up, expected[name].up) for name in kept)


def test_a_diverging_run_is_noticed_by_itself(tmp_path: Path) -> None:
    wild = replace(QUIET, learning_rate=1e30, max_grad_norm=0)
    loop = _loop(tmp_path, TrainConfig(LoraConfig(rank=4), wild, steps=50))
    with pytest.raises(AtelierError, match="NaN or infinite"):
        loop.run()


def test_random_state_is_left_as_found(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    _loop(tmp_path, TrainConfig(LoraConfig(rank=4, dropout=0.5), QUIET, steps=2)).run()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"half a file")
    loop = _loop(tmp_path, TrainConfig(LoraConfig(rank=4), QUIET, steps=2))
    with pytest.raises(AtelierError, match=r"state\.safetensors"):
        load_state(tmp_path / "state.safetensors", loop.trainer)


def test_checkpoints_appear_every_n_steps(tmp_path: Path) -> None:
    loop = _loop(tmp_path, TrainConfig(LoraConfig(rank=4), replace(QUIET, save_every=3), steps=7))
    loop.run()
    assert [p.name for p in sorted(tmp_path.glob("step-*"))] == ["step-000003.safetensors", "step-000006.safetensors"]
    assert loop.trainer.step == 7


def test_progress_reports_every_step_on_the_cpu(tmp_path: Path) -> None:
    monitor = StopAt()
    _loop(tmp_path, TrainConfig(LoraConfig(rank=4), QUIET, steps=5), monitor).run()
    assert [m["step"] for m in monitor.measured if "loss" in m] == [1, 2, 3, 4, 5]


def test_a_slow_first_step_does_not_stay_in_the_pace(tmp_path: Path) -> None:
    """As when it compiles."""
    now, monitor = [0.0], StopAt()
    loop = _loop(tmp_path, TrainConfig(LoraConfig(rank=4), QUIET, steps=5), monitor, clock=lambda: now[0])
    plain = loop.trainer.train_step

    def timed():
        now[0] += 0.1 if loop.trainer.step else 300
        return plain()

    loop.trainer.train_step = timed
    loop.run()
    paces = [values["steps_per_second"] for values in monitor.measured if "loss" in values]
    assert paces == pytest.approx([1 / 300, 10, 10, 10, 10])


class Pressing(Monitor):
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
    loop = _loop(tmp_path, TrainConfig(LoraConfig(rank=4), replace(QUIET, sample_every=4), steps=8), Pressing(2, 4),
                 draw=lambda: drawn.append(loop.trainer.step))
    loop.run()
    assert drawn == [2, 4, 8]


def test_a_resumed_run_shows_its_earlier_pictures(tmp_path: Path) -> None:
    config = TrainConfig(LoraConfig(rank=4), replace(QUIET, sample_every=1), steps=40)
    with pytest.raises(Interrupted):
        _loop(tmp_path, config, StopAt(interrupt=31)).run()
    store = RunStore(tmp_path)
    store.sample(1).parent.mkdir()
    for step in range(1, 31):
        Image.new("L", (8, 8), step).save(store.sample(step))
    store.sample(29).write_bytes(b"half a picture")
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(store.sample(28))
    parts = bytearray(store.sample(28).read_bytes())
    parts[parts.rindex(b"IDAT")] ^= 1  # Pillow calls this a syntax error
    store.sample(28).write_bytes(parts)
    (store.sample(1).parent / "step-000030 (copy).png").write_bytes(b"of the user's")
    monitor = Pressing()
    _loop(tmp_path, config, monitor).run()
    assert monitor.seen == [(step, step) for step in range(19, 31) if step < 28 or step == 30]


class LeftHalf(MemorySet):
    """Only the left half of each picture counts."""

    def mask(self, index: int, flip: bool) -> torch.Tensor:
        mask = torch.zeros(1, self.items[index].height, self.items[index].width)
        mask[..., :self.items[index].width // 2] = 1
        return mask


@pytest.mark.parametrize(("data", "counts"), [(MemorySet.of(12), 8), (LeftHalf(MemorySet.of(12).items), 4)])
def test_validation_is_the_mean_of_single_comparisons(data: MemorySet, counts: int) -> None:
    """Against diffusers' noise and a forward pass for each picture and timestep alone."""
    trainer = Trainer(parts(), data, TrainConfig(LoraConfig(rank=4), replace(
        QUIET, monitor="validation", patience=9, validation_pictures=2, validation_timesteps=9), steps=5))
    trainer.train_step()
    scheduler, unet, losses = DDPMScheduler.from_config(scheduler_config()), trainer.parts.unet.eval(), []
    plan = replace(trainer.validation, batch_size=1)
    for use, (t,), (seed,) in plan.batches(1000):
        mean = data.moments(use.index, False)[0][None]
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            noisy = scheduler.add_noise(mean, noise, torch.tensor([t]))
            prediction = unet(noisy, t, data.text(use.index, 0).embeds[None]).sample
        losses.append(torch.nn.functional.mse_loss(prediction[..., :counts], noise[..., :counts]).item())
    assert len(losses) == len(plan.uses) * 9
    assert trainer.validate() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
