"""Differential output preservation: what it adds to the loss, and that the class stays what it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.training import MemorySet, denoiser, tiny_unet
from kit.training_loop import QUIET, StopAt, loop_in, request, same, train_steps
from kit.training_run import REQUEST

from atelier.dataset.types import Sample, TrainingSet
from atelier.errors import AtelierError
from atelier.progress import Interrupted
from atelier.train import trainer as trainer_module
from atelier.train.batch_cut import BatchCut
from atelier.train.batch_loader import BatchLoader
from atelier.train.bucket_sampler import SampleUse
from atelier.train.preservation import check_preservation, drift
from atelier.train.trainer import Trainer

DOG = {"preservation_class": "dog"}
DATA = MemorySet.of(6, prior=2)
"""Two of eight captions have no trigger."""


def trainer_of(*options: dict[str, Any], learnt: bool = True, data: MemorySet = DATA) -> Trainer:
    trainer = Trainer(denoiser(), data, request(dict(rank=4), QUIET, *options, steps=10))
    if learnt:  # an untrained LoRA predicts what the base does
        stream = torch.Generator().manual_seed(0)
        trainer.adapters.load([master + 0.05 * torch.randn(master.shape, generator=stream)
                               for master in trainer.adapters.masters])
    return trainer


def gradients(trainer: Trainer) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of a step."""
    loss = trainer._accumulate(0, trainer.initial_loss_scale).item()
    found = [torch.zeros_like(master) if master.grad is None else master.grad.clone()
             for master in trainer.adapters.masters]
    trainer.adapters.drop_gradients()
    return loss, found


@pytest.mark.parametrize("kind", [{"kind": "lora"}, {"kind": "dora"}, {"kind": "loha"}, {"kind": "lokr"},
                                  {"kind": "oft"}, {"init_weights": "pissa"}], ids=str)
def test_the_loss_has_the_squared_difference_from_the_untouched_network(kind: dict[str, str],
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**kind, "batch_size": 8}
    plain, held = trainer_of(options), trainer_of(options, DOG, {"preservation_weight": 250.0})
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    noisy = type(held.objective).noisy
    monkeypatch.setattr(type(held.objective), "noisy",
                        lambda self, latents, noise, t: seen.append((noisy(self, latents, noise, t), t)) or seen[-1][0])
    loss, _ = gradients(held)
    (given, levels), = seen
    added, base = 0.0, tiny_unet().to(given.device)
    for row, use in enumerate(held._batches(0)[0]):
        if use.index < 6:
            text = DATA.class_text(use.index, use.variant)["embeds"][None].to(given.device)  # type: ignore[index]
            now, before = (unet(given[row:row + 1], levels[row:row + 1], text).sample.detach()
                           for unet in (held.denoiser.unet, base))
            added += (now - before).square().mean().item() / 8
    assert 250 * added > 0.01 * loss
    assert loss == pytest.approx(gradients(plain)[0] + 250 * added, rel=1e-4)


def test_a_weight_of_0_is_none() -> None:
    runs = [trainer_of(options, learnt=False) for options in ({}, {**DOG, "preservation_weight": 0.0}, DOG)]
    losses = [train_steps(run, 3) for run in runs]
    off, none, held = (run.adapters.masters for run in runs)
    assert losses[0] == losses[1] and all(map(torch.equal, off, none))
    assert not all(map(torch.equal, off, held))


def test_the_gradients_are_those_of_the_batch_however_it_is_cut() -> None:
    """In pieces, and in the shares of two processes."""
    trainer = trainer_of(DOG, {"batch_size": 8})
    loss, whole = gradients(trainer)
    for cuts in ([BatchCut(at_once=3, rank=0, count=1)], [BatchCut(at_once=4, rank=rank, count=2) for rank in (0, 1)]):
        found = []
        for trainer.cut in cuts:
            found.append(gradients(trainer))
        assert sum(part for part, _ in found) == pytest.approx(loss, rel=1e-5)
        for index, gradient in enumerate(whole):
            torch.testing.assert_close(sum(parts[index] for _, parts in found), gradient, rtol=1e-3, atol=1e-6)


def test_nothing_is_held_where_no_caption_has_the_trigger() -> None:
    loader = BatchLoader(DATA, torch.device("cpu"), torch.float32, prior_weight=1, cached_text=True)  # type: ignore
    assert loader.class_of((SampleUse(6), SampleUse(0, without_caption=True))) is None
    held = loader.class_of((SampleUse(6), SampleUse(0)))
    assert held is not None and held.weights.tolist() == [0, 1]
    assert torch.equal(held.conditions[0]["embeds"], DATA.text(6, 0)["embeds"])


def test_adapters_are_on_again_after_an_error() -> None:
    adapters = trainer_of().adapters
    before = denoiser_output(adapters)
    with pytest.raises(ZeroDivisionError), adapters.off():
        assert not torch.equal(denoiser_output(adapters), before)
        raise ZeroDivisionError
    assert torch.equal(denoiser_output(adapters), before)


@torch.no_grad()
def denoiser_output(adapters: Any, index: int = 0, text: str = "class_text") -> torch.Tensor:
    """Of a fixed noisy latent."""
    unet = adapters.components["unet"]
    latent = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(7))
    embeds = getattr(DATA, text)(index, 0)["embeds"][None]
    device = next(unet.parameters()).device
    return unet(latent.to(device), torch.tensor([500], device=device), embeds.to(device)).sample


def test_the_class_moves_a_fifth_at_most_and_the_trigger_learns() -> None:
    """Where captions decide most: in the attention to them."""
    moved: dict[str, list[float]] = {"class_text": [], "text": []}
    for options in ({}, {**DOG, "preservation_weight": 10.0}):
        trainer = trainer_of(options, {"batch_size": 4, "rank": 16, "learning_rate": 1e-2,
                                       "targets": "cross_attention"}, learnt=False)
        with trainer.adapters.off():
            before = {text: denoiser_output(trainer.adapters, text=text) for text in moved}
        train_steps(trainer, 15)
        for text, far in moved.items():
            far.append((denoiser_output(trainer.adapters, text=text) - before[text]).square().mean().item())
    assert moved["class_text"][1] < moved["class_text"][0] / 5
    assert moved["text"][1] > moved["class_text"][1] * 3


def test_a_resumed_run_gives_the_same_weights(tmp_path: Path) -> None:
    wanted = request(dict(rank=4, dropout=0.2), QUIET, DOG, steps=4)
    whole = loop_in(tmp_path / "whole", wanted, data=DATA).run()
    with pytest.raises(Interrupted):
        loop_in(tmp_path / "cut", wanted, StopAt(interrupt=3), data=DATA).run()
    resumed = loop_in(tmp_path / "cut", wanted, data=DATA).run()
    assert 0 < resumed.began_step < 4 and same(whole.weights, resumed.weights)


def test_what_autograd_keeps_is_there_for_one_pass_at_a_time() -> None:
    """So the memory of a step is what was counted without it."""
    peaks = []
    for options in ({}, DOG):
        trainer, live, peak = trainer_of(options, {"batch_size": 8}), [0], [0]

        class Saved:
            def __init__(self, tensor: torch.Tensor, live: list[int] = live, peak: list[int] = peak) -> None:
                self.tensor, self.live = tensor, live
                live[0] += tensor.nbytes
                peak[0] = max(peak[0], live[0])

            def __del__(self) -> None:
                self.live[0] -= self.tensor.nbytes

        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            gradients(trainer)
        assert live == [0]
        peaks += peak
    assert 0 < peaks[1] < 1.01 * peaks[0]


def test_a_run_encodes_what_it_holds(run: Any, pictures: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AtelierError, match="no trigger word"):
        run(request=REQUEST.override(DOG))
    data = replace(pictures, trigger="fox", samples=tuple(replace(sample, captions=("a fox, red",))
                                                          for sample in pictures.samples))
    held: list[float] = []
    monkeypatch.setattr(trainer_module, "drift", lambda *given: held.append(len(given[4].weights)) or drift(*given))
    run(request=REQUEST.override(DOG), data=data)
    assert held == [1, 1, 1]


def data_of(caption: str, trigger: str) -> TrainingSet:
    return TrainingSet(samples=(Sample(image=Path("a.png"), captions=(caption,), digest="0", size=(64, 64)),),
                       trigger=trigger)


@pytest.mark.parametrize(("caption", "trigger", "problem"), [
    ("ohwx", "", "no trigger word"), ("Dog, snow", "Dog", "both 'dog'"), ("snow", "ohwx", "no caption contains")])
def test_what_cannot_be_told_from_the_class_is_refused(caption: str, trigger: str, problem: str) -> None:
    data = data_of(caption, trigger)
    with pytest.raises(AtelierError, match=problem):
        check_preservation(request(DOG, steps=1), data)
    check_preservation(request(steps=1), data)
    check_preservation(request(DOG, preservation_weight=0.0, steps=1), data)


def test_the_text_encoder_cannot_be_trained_with_it() -> None:
    with pytest.raises(AtelierError, match="preservation_class with train_text_encoder"):
        request(DOG, train_text_encoder=True, steps=1)
