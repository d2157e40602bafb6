"""What is kept of a run however it ends: interrupts at any place, memory or disk that runs out, numbers that fail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.training import MemorySet, denoiser
from kit.training_loop import QUIET, StopAt, loop_in, request, same, train_steps
from safetensors import safe_open

from atelier.errors import AtelierError
from atelier.lora.file import load_lora
from atelier.progress import Interrupted, Progress
from atelier.train.loop import Loop
from atelier.train.loss_scale import LossScale
from atelier.train.processes import OtherProcessFailed
from atelier.train.run_folder import RoundScore, RunFolder
from atelier.train.trainer import StepResult, Trainer

pytestmark = pytest.mark.gpu


def test_an_interrupt_leaves_a_lora_of_what_was_learnt(tmp_path: Path) -> None:
    config = request(dict(rank=4), QUIET, steps=10)
    with pytest.raises(Interrupted):
        loop_in(tmp_path, config, StopAt(interrupt=4)).run()
    reference = loop_in(tmp_path / "other", config)
    train_steps(reference.trainer, 3)
    kept, expected = load_lora(RunFolder(tmp_path).last), reference.trainer.adapters.weights()
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name].up, expected[name].up) for name in kept)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_validation_can_be_interrupted_and_is_made_up_for(tmp_path: Path, ema: float) -> None:
    options = dict(QUIET, monitor="validation", validate_every=3, patience=99, ema_decay=ema, save_every=3)
    config, data = request(dict(rank=4), options, steps=7), MemorySet.of(4)
    whole = loop_in(tmp_path / "whole", config, data=data)
    whole.run()
    cut = loop_in(tmp_path / "cut", config, StopAt(interrupt=6), data)  # the third check within the first validation
    with pytest.raises(Interrupted):
        cut.run()
    assert (cut.state.step, cut.state.history.validation) == (3, [])
    assert same(RunFolder(tmp_path / "cut").last, RunFolder(tmp_path / "whole").at(3))
    resumed = loop_in(tmp_path / "cut", config, data=data)
    resumed.run()
    assert resumed.state.history == whole.state.history
    assert resumed.state.early_stopping == whole.state.early_stopping
    assert {p.name for p in (tmp_path / "cut").iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}
    assert all(same(tmp_path / "cut" / p.name, p) for p in (tmp_path / "whole").glob("[!s]*.safetensors"))


def test_a_validation_asks_before_each_pass() -> None:
    trainer = Trainer(denoiser(), MemorySet.of(40), request(dict(rank=4), dict(
        QUIET, monitor="validation", patience=9, validation_timesteps=50), steps=5))
    passes, unet, since = [0], trainer.denoiser.unet, []
    plain = unet.forward

    def counted(*args: Any, **options: Any) -> Any:
        passes[0] += 1
        return plain(*args, **options)

    unet.forward = counted
    trainer.validate(lambda: since.append(passes[0]))
    assert since == list(range(passes[0])) and passes[0] == 4 * 13


def test_an_interrupt_leaves_a_running_average_in_its_place() -> None:
    trainer = Trainer(denoiser(), MemorySet.of(4), request(dict(rank=4), dict(
        QUIET, ema_decay=0.9), steps=5))
    train_steps(trainer, 1)
    before = trainer.adapters.snapshot()
    with pytest.raises(Interrupted):
        trainer.validate(StopAt(interrupt=2).check)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.adapters.snapshot(), strict=True))


def test_an_interrupt_in_a_sample_keeps_the_lora_and_the_picture_is_made_up_for(tmp_path: Path) -> None:
    config, folder = request(dict(rank=4), dict(QUIET, sample_every=4), steps=8), RunFolder(tmp_path)

    def run(progress: Progress, *, interrupted: bool) -> list[int]:
        drawn: list[int] = []

        def draw(step: int, weights: Any = None) -> None:
            progress.check()
            drawn.append(step)
            folder.sample(step).parent.mkdir(exist_ok=True)
            folder.sample(step).write_bytes(b"a picture")

        loop = loop_in(tmp_path, config, progress, draw=draw)
        if interrupted:
            with pytest.raises(Interrupted):
                loop.run()
        else:
            loop.run()
        return drawn

    reference = loop_in(tmp_path / "whole", config.override(dict(save_every=4)))
    reference.run()
    assert run(StopAt(interrupt=5), interrupted=True) == []
    assert same(folder.last, reference.folder.at(4))
    # Once made up for, no picture is drawn twice; the last one is due when no step is left.
    assert run(StopAt(interrupt=6), interrupted=True) == [4]
    assert same(folder.last, reference.folder.last)
    assert run(Progress(), interrupted=False) == [8]


class Phases(Progress):
    """Notes what is said in each phase."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def advance(self, done: int, text: str = "") -> None:
        self.said.append(text)


def test_a_sample_that_does_not_fit_in_memory_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    def draw(step: int, weights: Any = None) -> None:
        tried.append(step)
        if len(tried) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        if len(tried) == 2:
            torch.empty(10**15)  # a processor's own error is another

    progress = Phases()
    config = request(dict(rank=4), dict(QUIET, sample_every=2), steps=6)
    loop = loop_in(tmp_path, config, progress, draw=draw)
    with caplog.at_level("WARNING", "atelier"):
        assert loop.run().status == "complete"
    assert (tried, loop.undrawn) == ([2, 4, 6], [2, 4])
    assert [record.args for record in caplog.records if record.name == "atelier"] == [(2,), (4,)]
    assert sum("no memory for a sample" in text for text in progress.said) == 2
    reference = loop_in(tmp_path / "other", request(dict(rank=4), QUIET, steps=6))
    reference.run()
    assert same(loop.folder.last, reference.folder.last)


def test_a_sample_that_fits_without_graphs_is_drawn_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up: list[str] = []
    tried: list[int] = []

    def draw(step: int, weights: Any = None) -> RoundScore:
        tried.append(step)
        if len(tried) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return RoundScore(fidelity=0.1 * step, likeness=0)

    def give_up(reason: str) -> bool:
        given_up.append(reason)
        return len(given_up) == 1

    config = request(dict(rank=4), dict(QUIET, monitor="fidelity", validate_every=2, patience=9), steps=6)
    loop = loop_in(tmp_path, config, draw=draw)
    monkeypatch.setattr(loop.trainer.captured, "give_up", give_up)
    loop.run()
    assert (tried, loop.undrawn) == ([2, 2, 4, 6], [])
    assert [step for step, _ in loop.state.history.judged] == [2, 4, 6]


def test_running_out_of_memory_in_a_step_keeps_the_steps_before(tmp_path: Path) -> None:
    config = request(dict(rank=4), QUIET, steps=6)
    loop = loop_in(tmp_path, config)
    plain = loop.trainer.train_step
    loop.trainer.train_step = lambda step, scale: torch.empty(10**15) if step == 4 else plain(step, scale)
    with pytest.raises(AtelierError, match=r"Memory ran out at step 5 \(batch size 2.*smaller batch size"):
        loop.run()
    reference = loop_in(tmp_path / "other", replace(config, steps=4))
    reference.run()
    assert same(loop.folder.last, reference.folder.last)
    resumed = loop_in(tmp_path, config)
    result = resumed.run()
    assert (result.status, result.began_step) == ("complete", 4)


def test_an_interrupt_within_a_step_keeps_the_steps_before(tmp_path: Path) -> None:
    """ComfyUI's layers raise its interrupt wherever it comes."""
    config = request(dict(rank=4), QUIET, steps=4, gradient_accumulation=2)
    whole = loop_in(tmp_path / "whole", replace(config, steps=2))
    whole.run()
    cut = loop_in(tmp_path / "cut", config)
    passes, plain = [0], cut.trainer.denoiser.unet.forward

    def forward(*args: Any, **options: Any) -> Any:
        passes[0] += 1
        if passes[0] == 6:  # the second pass of the third step
            raise Interrupted
        return plain(*args, **options)

    cut.trainer.denoiser.unet.forward = forward
    with pytest.raises(Interrupted):
        cut.run()
    assert same(cut.folder.last, whole.folder.last)
    reference = loop_in(tmp_path / "reference", config)
    reference.run()
    resumed = loop_in(tmp_path / "cut", config)
    assert resumed.run().began_step == 2
    assert same(resumed.folder.last, reference.folder.last)


def test_running_out_of_memory_in_a_validation_keeps_the_work(tmp_path: Path) -> None:
    options = dict(QUIET, monitor="validation", validate_every=2, patience=9)
    loop = loop_in(tmp_path, request(dict(rank=4), options, steps=6))

    def full(check: Any) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    loop.trainer.validate = full
    with pytest.raises(AtelierError, match=r"validating after step 2.*batch size"):
        loop.run()
    reference = loop_in(tmp_path / "other", request(dict(rank=4), QUIET, steps=2))
    reference.run()
    assert same(loop.folder.last, reference.folder.last) and loop.folder.state.exists()


def test_a_validation_that_fits_without_graphs_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_in(tmp_path, request(dict(rank=4), dict(QUIET, monitor="validation", validate_every=2, patience=9),
                                     steps=4))
    validate, given_up = loop.trainer.validate, []

    def full_at_first(check: Any) -> float:
        if not given_up:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return validate(check)

    monkeypatch.setattr(loop.trainer, "validate", full_at_first)
    monkeypatch.setattr(loop.trainer.captured, "give_up", lambda reason: given_up.append(reason) or True)
    loop.run()
    assert given_up == ["memory ran out in a validation"]
    assert [step for step, _ in loop.state.history.validation] == [2, 4]


def test_where_another_process_fails_the_work_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once: what this process's step has begun is not taken back, since its sums may be done."""
    loop = loop_in(tmp_path, request(dict(rank=4), QUIET, steps=6))
    step = loop.trainer.train_step

    def left_alone(number: int, scale: LossScale) -> StepResult:
        if number == 2:
            raise OtherProcessFailed("Another process of this training failed.", "Its message says why.")
        return step(number, scale)

    monkeypatch.setattr(loop.trainer, "train_step", left_alone)
    monkeypatch.setattr(loop.trainer, "drop_step", lambda step: pytest.fail("the step was taken back"))
    with pytest.raises(OtherProcessFailed):
        loop.run()
    reference = loop_in(tmp_path / "other", request(dict(rank=4), QUIET, steps=2))
    reference.run()
    assert same(loop.folder.last, reference.folder.last) and loop.folder.state.exists()


def test_float16_writes_no_untouched_lora(tmp_path: Path) -> None:
    """So steep that the first steps only find the loss scale."""
    options = dict(QUIET, precision="fp16", monitor="validation", validate_every=1, patience=99, save_every=1)
    config = request(dict(rank=4, alpha=4096), options, steps=10)

    def loop(progress: Progress) -> Loop:
        trainer = Trainer(denoiser(dtype=torch.float16), MemorySet.of(1), config)
        return Loop(trainer, RunFolder(tmp_path), progress, metadata=lambda step: {"step": str(step)})

    cut = loop(StopAt(interrupt=5))  # steps 1 and 2 with two passes of validation each
    with pytest.raises(Interrupted):
        cut.run()
    assert cut.state.early_stopping.best_step == 0 and not cut.folder.best.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    cut = loop(StopAt(stop=3))  # after the two passes that were cut short
    with pytest.raises(AtelierError, match=r"Nothing was learnt in 2 steps.*float16"):
        cut.run()
    resumed = loop(Progress())
    resumed.run()
    first = min(int(path.stem[-6:]) for path in tmp_path.glob("step-*"))
    assert first > 2 and resumed.state.history.validation[0][0] == 1
    assert resumed.state.early_stopping.best_step >= first and load_lora(RunFolder(tmp_path).best)


def test_a_kill_costs_two_minutes_of_work_and_a_step_at_most(tmp_path: Path) -> None:
    """Where nothing else saves: steps of 50 seconds, and before each of them the step that the saved state is of."""
    now, saved = [0.0], []

    class Slow(Progress):
        def check(self) -> None:
            state = RunFolder(tmp_path).state
            if state.exists():
                with safe_open(state, framework="pt") as file:
                    saved.append(json.loads(file.metadata()["atelier"])["step"])
            else:
                saved.append(0)
            now[0] += 50

    loop_in(tmp_path, request(dict(rank=4), QUIET, steps=8), Slow(), clock=lambda: now[0]).run()
    assert saved == [0, 0, 0, 3, 3, 3, 6, 6]


def test_a_state_that_does_not_fit_on_the_disk_costs_no_lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise AtelierError("The disk is full.", "Free some space.")

    monkeypatch.setattr("atelier.train.checkpoint_writer.save_state", full)
    with pytest.raises(AtelierError, match="disk is full"):
        loop_in(tmp_path, request(dict(rank=4), QUIET, steps=10), StopAt(interrupt=4)).run()
    assert load_lora(RunFolder(tmp_path).last)


def test_an_interrupt_before_the_first_step_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        loop_in(tmp_path, request(dict(rank=4), QUIET, steps=10), StopAt(interrupt=1)).run()
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_nan_ends_the_run_and_keeps_the_last_good_weights(tmp_path: Path, ema: float) -> None:
    config = request(dict(rank=4), dict(QUIET, ema_decay=ema), steps=10)
    loop = loop_in(tmp_path, config)
    plain = loop.trainer.train_step

    def broken(step: int, loss_scale: LossScale) -> StepResult:
        result = plain(step, loss_scale)
        return StepResult(result.loss * float("nan"), ~result.finite, loss_scale) if step == 3 else result

    loop.trainer.train_step = broken
    with pytest.raises(AtelierError, match="step 4") as caught:
        loop.run()
    assert "learning rate" in str(caught.value)
    reference = loop_in(tmp_path / "other", config).trainer
    train_steps(reference, 3)
    kept, expected = load_lora(RunFolder(tmp_path).last), reference.adapters.weights(reference.current)
    assert all(torch.equal(kept[name].up, expected[name].up) for name in kept)


def test_the_first_of_the_steps_read_at_once_is_named(tmp_path: Path) -> None:
    """A graphics card's losses are fetched several steps at a time."""
    loop = loop_in(tmp_path, request(dict(rank=4), QUIET, steps=10))
    loop.state.step = 7
    loop._unread += [(torch.tensor(loss), torch.tensor(finite))
                     for loss, finite in ((0.5, True), (0.4, True), (float("nan"), False), (float("nan"), False))]
    with pytest.raises(AtelierError, match="step 6"):
        loop._read()


def test_nan_right_after_resuming_keeps_what_was_learnt_before(tmp_path: Path) -> None:
    config = request(dict(rank=4), QUIET, steps=10)
    with pytest.raises(Interrupted):
        loop_in(tmp_path, config, StopAt(interrupt=4)).run()
    learnt = load_lora(RunFolder(tmp_path).last)
    loop = loop_in(tmp_path, config)
    plain = loop.trainer.train_step

    def broken(step: int, loss_scale: LossScale) -> StepResult:
        result = plain(step, loss_scale)
        return StepResult(result.loss * float("nan"), ~result.finite, loss_scale)

    loop.trainer.train_step = broken
    with pytest.raises(AtelierError, match="weights of step 3 are kept"):
        loop.run()
    kept = load_lora(RunFolder(tmp_path).last)
    assert kept.keys() == learnt.keys() and all(torch.equal(kept[name].up, learnt[name].up) for name in learnt)


def test_a_damaged_model_is_not_blamed_on_the_learning_rate(tmp_path: Path) -> None:
    loop = loop_in(tmp_path, request(dict(rank=4), QUIET, steps=10))
    damaged = loop.trainer.denoiser.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q.base_layer.weight
    with torch.no_grad():
        damaged[0, 0] = float("nan")
    with pytest.raises(AtelierError, match=r"down_blocks\.0\..*attn1\.to_q\.weight of the unet") as caught:
        loop.run()
    assert "learning rate" not in str(caught.value)


def test_a_diverging_run_is_noticed_by_itself(tmp_path: Path) -> None:
    wild = dict(QUIET, learning_rate=1e30, max_grad_norm=0)
    loop = loop_in(tmp_path, request(dict(rank=4), wild, steps=50))
    with pytest.raises(AtelierError, match="NaN or infinite"):
        loop.run()
