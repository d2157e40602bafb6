"""Compiled training steps: the same losses, and a way back."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING, cast

import pytest
import torch
from kit.training import MemorySet, denoiser
from kit.training_loop import request, train_steps
from torch._dynamo.exc import TorchDynamoException

from atelier.train.trainer import Trainer

if TYPE_CHECKING:
    from atelier.dataset.cache import EncodedSet

pytestmark = pytest.mark.gpu

STEPS = 20
PLAIN = dict(batch_size=2, gradient_accumulation=2, monitor="off", patience=0, schedule="constant")


def trainer(compiled: bool, learning_rate: float = 3e-4) -> Trainer:
    return Trainer(denoiser(), cast("EncodedSet", MemorySet.of(8)), request(
        PLAIN, rank=4, compile="on" if compiled else "off", learning_rate=learning_rate, steps=STEPS))


def losses(of: Trainer) -> list[float]:
    return train_steps(of, STEPS)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="no C++ compiler")
def test_compiled_losses_are_the_plain_ones() -> None:
    torch._dynamo.reset()
    compiled, plain = trainer(True), trainer(False)
    # Other kernels round otherwise, and AdamW's first steps follow the sign of gradients however small.
    losses_of_plain = losses(plain)
    assert losses(compiled) == pytest.approx(losses_of_plain, rel=1e-3)
    assert compiled.unet.compiled, "it fell back, so nothing was compared"
    untrained = losses(trainer(False, learning_rate=1e-12))
    assert losses_of_plain != pytest.approx(untrained, rel=5e-3), "nothing was learnt, so nothing was compared"


def test_a_machine_that_cannot_compile_trains_all_the_same(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("no kernels")))
    fallen = trainer(True)
    with caplog.at_level(logging.WARNING, logger="atelier"):
        found = losses(fallen)
    assert not fallen.unet.compiled
    assert "cannot be compiled" in caplog.text
    assert found == losses(trainer(False))
    torch._dynamo.reset()


def test_a_failure_of_another_kind_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = trainer(False)

    def fail(*_: object) -> None:
        raise TorchDynamoException

    monkeypatch.setattr(plain, "_accumulate", fail)
    with pytest.raises(TorchDynamoException):
        train_steps(plain, 1)
