"""Steps that are replayed: the same losses and weights as plain ones, to the last bit, whatever changes between them.

`kit.recorded_graphs` stands for CUDA graphs; `test_card.py` runs this file on the pretend device as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from kit.device import chosen_device
from kit.recorded_graphs import RecordedGraphs
from kit.training import MemorySet, denoiser, tiny_unet
from kit.training_loop import QUIET, request, same
from torch import Tensor

from atelier.dataset.cache import EncodedSet
from atelier.progress import Progress
from atelier.train import captured_step
from atelier.train.loop import Loop
from atelier.train.request.request import TrainRequest
from atelier.train.run_folder import RunFolder
from atelier.train.trainer import Trainer
from atelier.train.unet_memory_plan import checkpoint_unet

pytestmark = pytest.mark.gpu
STEPS = 12


class Masked(MemorySet):
    """Every third picture has a mask; two sizes, so that with partial batches there are many shapes."""

    def mask(self, index: int, flip: bool) -> Tensor | None:
        item = self.items[index]
        return None if index % 3 else torch.linspace(0, 1, item.height * item.width).reshape(1, item.height, item.width)


def mixed() -> Masked:
    found = MemorySet.of(7, prior=2)
    return Masked(tuple(replace(item, height=16 if item.index % 2 else 8) for item in found.items))


def graphs() -> RecordedGraphs:
    return RecordedGraphs(chosen_device())


def loop_of(folder: Path, wanted: TrainRequest, given: RecordedGraphs | None, dtype: torch.dtype = torch.float32,
            data: MemorySet | None = None, checkpointing: bool = False, **more: Any) -> Loop:
    unet = tiny_unet()
    if checkpointing:
        checkpoint_unet(unet, wanted.lora)
    trainer = Trainer(denoiser(unet, dtype), cast("EncodedSet", data or mixed()), wanted, graphs=given)
    return Loop(trainer, RunFolder(folder), Progress(), metadata=lambda step: {"step": str(step)}, **more)


def trainer_of(data: MemorySet, wanted: TrainRequest, graphs: RecordedGraphs | None = None) -> Trainer:
    return Trainer(denoiser(), cast("EncodedSet", data), wanted, graphs=graphs)


def asked(*options: dict[str, Any], **values: Any) -> TrainRequest:
    return request(dict(rank=4), QUIET, *options, **{"steps": STEPS, "cuda_graphs": "on", **values})


@pytest.mark.parametrize(("dtype", "options", "checkpointing"), [
    (torch.float32, dict(gradient_accumulation=2, ema_decay=0.9, schedule="cosine"), False),
    (torch.bfloat16, dict(gradient_accumulation=3, max_grad_norm=0.01, min_snr_gamma=5.0, prior_weight=0.5), False),
    (torch.float16, dict(noise_offset=0.1, warmup_steps=4, loss="huber", gradient_accumulation=2), True),
    (torch.bfloat16, dict(kind="dora", optimizer="sgd"), True)], ids=str)
def test_replayed_steps_are_plain_ones(tmp_path: Path, dtype: torch.dtype, options: dict[str, Any],
                                       checkpointing: bool) -> None:
    given, found = graphs(), []
    for name, stand_in in (("plain", None), ("replayed", given)):
        loop = loop_of(tmp_path / name, asked(options, cuda_graphs="on" if stand_in else "off"), stand_in, dtype,
                       checkpointing=checkpointing)
        found.append((loop.run().weights, loop.state.history.losses))
    (plain, losses), (replayed, others) = found
    assert losses == others and len(losses) == STEPS
    assert same(plain, replayed)
    assert given.captured > 1 and given.replayed > 2 * given.captured, "each is replayed twice when it is made"


def test_a_run_changes_between_both_ways(tmp_path: Path) -> None:
    """Begun with graphs and resumed without, and the other way round: what an unbroken plain run gives."""
    data = MemorySet.of(4)
    whole = loop_of(tmp_path / "whole", asked(cuda_graphs="off"), None, data=data)
    weights = whole.run().weights
    for name, first, second in (("to plain", graphs(), None), ("to graphs", None, graphs())):
        loop_of(tmp_path / name, asked(steps=7), first, data=data).run()
        resumed = loop_of(tmp_path / name, asked(), second, data=data)
        result = resumed.run()
        assert result.began_step == 7 and resumed.state.history.losses == whole.state.history.losses
        assert same(result.weights, weights)
        assert (first or second).replayed > 0  # pyright: ignore[reportOptionalMemberAccess]


def test_recording_changes_neither_weights_nor_random_numbers() -> None:
    given = graphs()
    trainer = trainer_of(MemorySet.of(2), asked(), graphs=given)
    batch = trainer._batches(0)[0]
    inputs = trainer._inputs(batch, slice(0, 2), 1)
    before, state = trainer.adapters.snapshot(), torch.get_rng_state()
    for _ in range(captured_step.PLAIN_USES):
        trainer.captured(inputs, 1.0, trainer.initial_loss_scale)
    assert given.captured == 0, "recording pays for shapes that come again"
    trainer.captured(inputs, 1.0, trainer.initial_loss_scale)
    assert given.captured == given.warmed == 1
    assert all(torch.equal(one, other) for one, other in zip(before, trainer.adapters.masters, strict=True))
    assert torch.equal(state, torch.get_rng_state())


def steps(trainer: Trainer, count: int = 6) -> list[float]:
    scale, losses = trainer.initial_loss_scale, []
    for step in range(count):
        result = trainer.train_step(step, scale)
        scale = result.loss_scale
        losses.append(result.loss.item())
    return losses


def plain_losses() -> list[float]:
    return steps(trainer_of(MemorySet.of(4), asked(cuda_graphs="off")))


class Stale(RecordedGraphs):
    """Repeats nothing: results stay what they were."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        super().capture(work)
        return lambda: None


class BakedLoss(RecordedGraphs):
    """Has results of the recording whatever the inputs are, as where the host had computed them."""

    def baked(self, of: Any) -> list[Tensor]:
        return [of.loss]

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        places = self.baked(work.__self__)  # pyright: ignore[reportFunctionMemberAccess]
        kept = [place.clone() for place in places]

        def replay() -> None:
            work()
            for place, value in zip(places, kept, strict=True):
                place.copy_(value)
        return replay


class BakedGradients(BakedLoss):
    def baked(self, of: Any) -> list[Tensor]:
        return [gradient for _, gradient in of.used]


@pytest.mark.parametrize("kind", [Stale, BakedLoss, BakedGradients])
def test_a_graph_that_computes_something_else_is_not_used(kind: type[RecordedGraphs],
                                                          caplog: pytest.LogCaptureFixture) -> None:
    trainer = trainer_of(MemorySet.of(4), asked(), graphs=kind(chosen_device()))
    with caplog.at_level(logging.WARNING, logger="atelier"):
        assert steps(trainer) == plain_losses()
    assert len(trainer.captured.notes) == 1 and "another result than a plain one" in caplog.text
    assert trainer.captured.shapes == 0


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore"),
                                   torch.OutOfMemoryError("CUDA out of memory.")], ids=str)
def test_a_recording_that_fails_loses_nothing(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    given = graphs()

    def fail(work: Callable[[], None]) -> Callable[[], None]:
        work()
        raise error

    monkeypatch.setattr(given, "capture", fail)
    trainer = trainer_of(MemorySet.of(4), asked(), graphs=given)
    assert steps(trainer) == plain_losses()
    assert trainer.captured.notes == ["Training goes on without CUDA graphs: the step could not be recorded "
                                      f"({str(error).splitlines()[0]})."]


def test_a_step_that_reads_the_device_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(MemorySet.of(4), asked(), graphs=graphs())
    plain = trainer.objective.loss
    monkeypatch.setattr(type(trainer.objective), "loss",
                        lambda objective, *args, **kwargs: plain(*args, **kwargs) * float(args[1].isfinite().all()))
    steps(trainer)
    assert trainer.captured.shapes == 0 and "_local_scalar_dense" in trainer.captured.notes[0]


@pytest.mark.parametrize(("choice", "took", "used"), [("auto", 0.9, True), ("auto", 1.0, False), ("on", 1.0, True)])
def test_graphs_are_used_by_themselves_where_they_are_faster(choice: str, took: float, used: bool) -> None:
    trainer = trainer_of(MemorySet.of(4), asked(cuda_graphs=choice),
                      graphs=RecordedGraphs(chosen_device(), took))
    assert steps(trainer) == plain_losses()
    assert trainer.captured.shapes == used and trainer.captured.notes == []


def test_there_are_graphs_for_so_many_shapes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_step, "MOST_SHAPES", 1)
    trainer = trainer_of(mixed(), asked(), graphs=graphs())
    steps(trainer, STEPS)
    note, = trainer.captured.notes
    assert trainer.captured.shapes == 1 and "more than 1 shapes" in note


@pytest.mark.parametrize(("options", "reason"), [
    (dict(dropout=0.1), "dropout"), (dict(rank_dropout=0.1), "dropout"), (dict(compile="on"), "compiled"),
    (dict(preservation_class="dog"), "preservation")], ids=str)
def test_what_cannot_be_recorded_is_said_and_trained_plainly(options: dict[str, Any], reason: str) -> None:
    given = graphs()
    trainer = trainer_of(MemorySet.of(4), asked(options), graphs=given)
    assert len(trainer.notes) == 1 and reason in trainer.notes[0]
    if options.get("compile") != "on":
        steps(trainer, 4)
    assert given.captured == 0
    assert trainer_of(MemorySet.of(4), asked(options, cuda_graphs="auto"), graphs=given).notes == ()


def test_without_a_card_a_wish_for_graphs_is_answered_in_words() -> None:
    if chosen_device().type == "cuda" and torch.backends.cuda.is_built():
        pytest.skip("they need a machine without CUDA")
    trainer = trainer_of(MemorySet.of(4), asked())
    assert "There are no CUDA graphs: " in trainer.notes[0]
    assert steps(trainer) == plain_losses()
    assert trainer_of(MemorySet.of(4), asked(cuda_graphs="auto")).notes == ()


def test_memory_that_runs_out_takes_the_graphs_first(tmp_path: Path) -> None:
    saved: list[bool] = []
    loop: Any = loop_of(tmp_path, asked(), graphs(), data=MemorySet.of(4), save_memory=lambda: saved.append(True))
    plain, failed = loop.trainer.train_step, []

    def step(number: int, scale: Any) -> Any:
        if number == 8 and not failed:
            failed.append(number)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(number, scale)

    loop.trainer.train_step = step
    loop.run()
    reference = loop_of(tmp_path / "plain", asked(cuda_graphs="off"), None, data=MemorySet.of(4))
    reference.run()
    assert loop.state.history.losses == reference.state.history.losses
    assert not saved
    assert loop.trainer.captured.notes == ["Training goes on without CUDA graphs: memory ran out at step 9."]


def test_a_shape_that_overflowed_while_it_was_recorded_is_recorded_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """float16 overflows in its first steps, until the loss scale is found."""
    results, asked_for = captured_step._CapturedPass.results, []

    def overflowing(of: Any) -> Tensor:
        asked_for.append(of)
        return results(of) * (float("inf") if len(asked_for) == 1 else 1)

    monkeypatch.setattr(captured_step._CapturedPass, "results", overflowing)
    trainer = trainer_of(MemorySet.of(4), asked(), graphs=graphs())
    assert steps(trainer) == plain_losses()
    assert trainer.captured.shapes == 1 and not trainer.captured.notes
    assert asked_for[1] is not asked_for[0]
