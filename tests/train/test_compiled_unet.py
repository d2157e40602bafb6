"""Compiled training steps: the same losses, and a way back."""

from __future__ import annotations

import logging
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
import torch
from diffusers import UNet2DConditionModel
from kit import training
from kit.training import MemorySet
from kit.training_loop import request, train_steps
from torch._dynamo.exc import TorchDynamoException

from atelier.train.compiled_unet import CompiledUNet
from atelier.train.trainer import Trainer

if TYPE_CHECKING:
    from atelier.dataset.cache import EncodedSet
    from atelier.train.unet_denoiser import UNetDenoiser

pytestmark = pytest.mark.gpu

STEPS = 20
PLAIN = dict(batch_size=2, gradient_accumulation=2, monitor="off", patience=0, schedule="constant")


def denoiser() -> UNetDenoiser:
    """Of a UNet with one block in and one out: compiling takes time by the block."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return training.denoiser(UNet2DConditionModel(
            block_out_channels=(32,), layers_per_block=1, norm_num_groups=8, attention_head_dim=4,
            down_block_types=("CrossAttnDownBlock2D",), mid_block_type=None, up_block_types=("CrossAttnUpBlock2D",),
            cross_attention_dim=training.WIDTH))


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


@pytest.mark.parametrize(("sizes", "told"), [(8, False), (9, True)])
def test_shapes_beyond_what_is_compiled_are_said(sizes: int, told: bool) -> None:
    items = tuple(replace(item, height=8 * (1 + item.index)) for item in MemorySet.of(sizes).items)
    found = {choice: Trainer(denoiser(), cast("EncodedSet", MemorySet(items)), request(
        PLAIN, rank=4, compile=choice, steps=STEPS)).notes for choice in ("on", "off")}
    assert found["off"] == ()
    assert found["on"] == ((f"The batches have {sizes} different shapes. PyTorch compiles the first 8 of them; the "
                            "others are computed without. Fewer bucket sizes, or batch size 1, make fewer shapes.",)
                           if told else ())


@pytest.mark.parametrize(("kind", "broken"), [("lora", False), ("loha", False), ("dora", True)])
def test_a_kind_that_is_compiled_in_pieces_is_said(kind: str, broken: bool) -> None:
    torch._dynamo.reset()
    made = Trainer(denoiser(), cast("EncodedSet", MemorySet.of(2)), request(
        PLAIN, rank=4, kind=kind, compile="on", steps=STEPS))
    found = torch._dynamo.explain(made.unet.module)(torch.randn(1, 4, 16, 16), torch.tensor([5]),
                                                    torch.randn(1, 77, 32))
    torch._dynamo.reset()
    assert (found.graph_count > 1) == broken
    assert any("in pieces" in note for note in made.notes) == broken


def test_failures_of_older_compilers_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases before 2.7 have no error of the code generator's own."""
    compiled = CompiledUNet(torch.nn.Linear(2, 2), wanted=True)
    assert len(compiled.errors()) == 2
    monkeypatch.setitem(sys.modules, "torch._inductor.exc", None)
    assert compiled.errors() == (TorchDynamoException,)
    assert CompiledUNet(torch.nn.Linear(2, 2), wanted=False).errors() == ()
