"""The optimisers of a run, those of optional packages by a stand-in."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from atelier.errors import AtelierError, MissingPackage
from atelier.train.optimizers import make_optimizer, rate_factor, reads_of, set_rate
from atelier.train.request.recipe import OptimizerConfig


class StrictProdigy(torch.optim.AdamW):
    """Refuses what prodigyopt 1.1 refuses at each step: rates of groups that differ from the largest and are not 0."""

    def step(self, closure=None):
        largest = max(group["lr"] for group in self.param_groups)
        if any(group["lr"] not in (largest, 0.0) for group in self.param_groups):
            raise RuntimeError("Setting different lr values in different parameter groups is only supported for 0")
        return super().step(closure)


@pytest.mark.parametrize(("text_rate", "moved"), [(5e-5, True), (0.0, False)])
def test_prodigy_trains_unet_and_text_encoder_at_one_rate(text_rate: float, moved: bool,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prodigyopt", SimpleNamespace(Prodigy=StrictProdigy))
    options = OptimizerConfig(optimizer="prodigy", learning_rate=1.0, text_learning_rate=text_rate, warmup_steps=2,
                              weight_decay=0.0)
    masters = [torch.ones(3, requires_grad=True) for _ in range(2)]
    optimizer = make_optimizer(["unet.a", "text_encoder.b"], masters, options)
    for step in range(4):
        set_rate(optimizer, rate_factor(step, 4, options))
        for master in masters:
            master.grad = torch.ones(3)
        optimizer.step()
    assert not torch.equal(masters[0], torch.ones(3))
    assert torch.equal(masters[1], torch.ones(3)) != moved


def test_other_optimisers_keep_the_text_encoders_own_rate() -> None:
    masters = [torch.ones(3, requires_grad=True) for _ in range(2)]
    groups = make_optimizer(["unet.a", "text_encoder.b"], masters, OptimizerConfig()).param_groups
    assert [group["lr"] for group in groups] == [1e-4, 5e-5]


@pytest.mark.parametrize(("optimizer", "package"), [("prodigy", "prodigyopt"), ("adamw8bit", "bitsandbytes")])
def test_a_package_that_is_not_there_is_named(optimizer: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed, whether it is or not
    with pytest.raises(MissingPackage, match=f"pip install {package}"):
        make_optimizer(["unet.a"], [torch.ones(3, requires_grad=True)], OptimizerConfig(optimizer=optimizer))


def test_only_text_encoders_have_the_text_encoders_rate() -> None:
    names = ["unet.a", "diffusion_model.b", "text_encoder.c", "text_encoder_2.d"]
    masters = [torch.zeros(1, requires_grad=True) for _ in names]
    optimizer = make_optimizer(names, masters, OptimizerConfig(learning_rate=1e-3, text_learning_rate=1e-5))
    rates = {id(tensor): group["lr"] for group in optimizer.param_groups for tensor in group["params"]}
    assert [rates[id(master)] for master in masters] == [1e-3, 1e-3, 1e-5, 1e-5]


def test_another_class_of_a_package_is_made_with_its_arguments() -> None:
    options = OptimizerConfig(optimizer="torch.Adamax", optimizer_args="eps=1e-4, betas=(0.8, 0.95)", weight_decay=0.2)
    made = make_optimizer(["unet.a"], [torch.ones(3, requires_grad=True)], options)
    assert type(made) is torch.optim.Adamax
    assert {key: made.defaults[key] for key in ("eps", "betas", "weight_decay")} == {
        "eps": 1e-4, "betas": (0.8, 0.95), "weight_decay": 0.2}


@pytest.mark.parametrize(("options", "words"), [
    ({"optimizer_args": "epsilon=1e-4"}, "takes no epsilon.*eps"),
    ({"optimizer_args": "lr=1e-4"}, "takes no lr.*learning_rate"),
    ({"optimizer_args": "eps='small'"}, "cannot be made"),
    ({"optimizer": "torch.Adan"}, "torch has no optimizer Adan"),
    ({"optimizer": "torch.LBFGS"}, "LBFGS does not train")])
def test_what_cannot_be_made_is_told(options: dict, words: str) -> None:
    with pytest.raises(AtelierError, match=words):
        make_optimizer(["unet.a"], [torch.ones(3, requires_grad=True)], OptimizerConfig(**options))


def test_the_b_matrices_learn_faster_with_lora_plus() -> None:
    names = ["unet.a.lora_A.default.weight", "unet.a.lora_B.default.weight", "text_encoder.b.lora_A.default.weight",
             "text_encoder.b.lora_B.default.weight"]
    masters = [torch.zeros(1, requires_grad=True) for _ in names]
    options = OptimizerConfig(learning_rate=1e-3, text_learning_rate=1e-5, lora_plus_ratio=16.0)
    optimizer = make_optimizer(names, masters, options)
    assert set_rate(optimizer, 0.5) == 5e-4
    rates = {id(tensor): group["lr"] for group in optimizer.param_groups for tensor in group["params"]}
    assert [rates[id(master)] for master in masters] == pytest.approx([5e-4, 8e-3, 5e-6, 8e-5])


@pytest.mark.parametrize(("schedule", "expected"), [
    ("cosine_with_restarts", [1, 0.5, 1, 0.5]), ("polynomial", [1, 0.5625, 0.25, 0.0625]),
    ("rex", [1, 0.75 / 0.875, 0.5 / 0.75, 0.25 / 0.625])])
def test_schedules_follow_their_formulas(schedule: str, expected: list[float]) -> None:
    options = OptimizerConfig(schedule=schedule, schedule_cycles=2)
    assert [rate_factor(step, 4, options) for step in range(4)] == pytest.approx(expected)


@pytest.mark.parametrize(("optimizer", "device", "said"), [
    ("prodigy", "cuda", True), ("prodigyopt.Prodigy", "cuda", True), ("prodigy", "cpu", False),
    ("adamw", "cuda", False)])
def test_an_optimiser_that_waits_for_the_card_is_told(optimizer: str, device: str, said: bool) -> None:
    sentence = reads_of(OptimizerConfig(optimizer=optimizer), 7, torch.device(device))
    assert ("Prodigy reads two numbers of each trained tensor from the card, 14 in a step" in sentence) == said
    assert said or not sentence
