"""Blocks whose weights wait in main memory: where they are when, and that nothing else changes."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.two_tensor import TwoTensor

from atelier.errors import AtelierError
from atelier.train.block_swap import BlockSwap, on_parts
from atelier.train.foreign_forward import checkpoint_blocks
from atelier.train.memory_plan import plan_memory, spread
from atelier.train.request.device import DeviceConfig
from atelier.train.step_count import StepCount

CPU = torch.device("cpu")


class Chain(nn.Module):
    """Linear layers in a row; notes the weights that each pass computes with."""

    def __init__(self, number: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(number)).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def gradient(chain: Chain) -> Tensor:
    x = torch.linspace(-1, 1, 24).reshape(3, 8).requires_grad_()
    chain(x).square().sum().backward()
    assert x.grad is not None
    return x.grad


def swapped(chain: Chain) -> tuple[list[int], list[weakref.ref[Tensor]]]:
    """Swap all layers; gives what is called (their indices, in order) and the weights that come to the device."""
    calls: list[int] = []
    seen: list[weakref.ref[Tensor]] = []
    waiting = {id(weight) for weight in chain.parameters()}
    for index, layer in enumerate(chain.layers):
        def note(module: Any, given: Any, index: int = index) -> None:
            weight = module.weight
            assert id(weight) not in waiting, "it computes with the weights in main memory"
            calls.append(index)
            seen.append(weakref.ref(weight))
        run = layer.forward

        def watched(x: Tensor, run: Any = run, note: Any = note, layer: Any = layer) -> Tensor:
            note(layer, x)
            return run(x)
        layer.forward = watched
    BlockSwap({str(index): layer for index, layer in enumerate(chain.layers)}, CPU)
    checkpoint_blocks({str(index): layer for index, layer in enumerate(chain.layers)})
    return calls, seen


def test_every_pass_finds_its_weights_and_nothing_stays_behind() -> None:
    expected = gradient(Chain(5))
    chain = Chain(5)
    before = list(chain.parameters())
    calls, seen = swapped(chain)
    for _ in range(2):
        assert torch.equal(gradient(chain), expected)
    assert calls == [0, 1, 2, 3, 4, 4, 3, 2, 1, 0] * 2
    assert [id(weight) for weight in chain.parameters()] == [id(weight) for weight in before]
    gc.collect()
    assert not any(weight() is not None for weight in seen)


def test_no_more_than_two_blocks_are_on_the_device() -> None:
    chain = Chain(6)
    waiting = {id(weight) for weight in chain.parameters()}
    most: list[int] = []

    def living(*_: object) -> None:
        gc.collect()
        most.append(sum(isinstance(thing, nn.Parameter) and thing.dim() == 2 and id(thing) not in waiting
                        for thing in gc.get_objects()))

    for layer in chain.layers:
        def watched(x: Tensor, run: Any = layer.forward) -> Tensor:
            living()
            return run(x)
        layer.forward = watched
    living()
    before = most.pop()
    blocks = {str(index): layer for index, layer in enumerate(chain.layers)}
    BlockSwap(blocks, CPU)
    checkpoint_blocks(blocks)
    for _ in range(3):  # the first pass shows the order, in which the next ones fetch ahead
        gradient(chain)
    assert len(most) == 3 * 12
    assert max(most) - before == 2


def test_what_is_away_is_not_moved_with_the_network() -> None:
    chain = Chain(2)
    swap = BlockSwap({"0": chain.layers[0]}, CPU)
    weight = chain.layers[0].weight
    with swap.kept_away():
        chain.to(torch.float64)  # stands for a move to a device
    assert chain.layers[0].weight is weight
    assert weight.dtype == torch.float32
    assert chain.layers[1].weight.dtype == torch.float64


def test_a_tensor_of_several_keeps_its_kind() -> None:
    """As quantised weights do, which would answer most operations with plain numbers."""
    both = TwoTensor(torch.ones(2, 3), torch.zeros(2, 3))
    parts: list[Tensor] = []

    def note(part: Tensor) -> Tensor:
        parts.append(part)
        return part + 1

    made = on_parts(both, note)
    assert type(made) is TwoTensor and [type(part) for part in parts] == [Tensor, Tensor]
    assert torch.equal(made.a, both.a + 1) and torch.equal(made.b, both.b + 1)


def count(**values: Any) -> StepCount:
    given: dict[str, Any] = dict(weights=1000, blocks={str(index): 100 for index in range(8)}, adapters=50, kept=1000,
                                 kept_with_checkpointing=100)
    return StepCount(**{**given, **values})


def test_the_cheapest_way_that_fits_is_chosen() -> None:
    auto = DeviceConfig()
    roomy, tight, small, least = (plan_memory(count(), auto, free) for free in (2200, 1165, 1000, 400))
    assert (roomy.checkpointing, roomy.swapped) == (False, ())
    assert (tight.checkpointing, tight.swapped) == (True, ())
    # Of four blocks two are always on the device: 1000 − 4 × 100 + 2 × 100 + 50 + 115 = 965.
    assert small.checkpointing and len(small.swapped) == 4 and small.fits and small.need == 965
    assert len(least.swapped) == 8 and not least.fits
    assert "8 of 8 blocks" in least.text() and "smaller resolution" in least.text()


def test_what_is_chosen_by_hand_is_kept() -> None:
    assert plan_memory(count(), DeviceConfig(gradient_checkpointing="off"), 10).checkpointing is False
    assert plan_memory(count(), DeviceConfig(gradient_checkpointing="off"), 10).swapped == ()
    assert plan_memory(count(), DeviceConfig(blocks_to_swap=0), 10).swapped == ()
    by_hand = plan_memory(count(), DeviceConfig(blocks_to_swap=3), None)
    assert by_hand.checkpointing and len(by_hand.swapped) == 3
    with pytest.raises(AtelierError, match=r"blocks_to_swap is 2.*gradient checkpointing"):
        DeviceConfig(blocks_to_swap=2, gradient_checkpointing="off")
    with pytest.raises(AtelierError, match="blocks_to_swap is -2"):
        DeviceConfig(blocks_to_swap=-2)


def test_a_step_that_could_not_be_counted_is_checkpointed_where_memory_is_scarce() -> None:
    assert plan_memory(None, DeviceConfig(), 10).checkpointing
    assert not plan_memory(None, DeviceConfig(), None).checkpointing
    assert "could not be counted" in plan_memory(None, DeviceConfig(), 10).text()


def test_blocks_are_chosen_evenly() -> None:
    paths = {str(index): 1 for index in range(9)}
    assert spread(paths, 3) == ("1", "4", "7")
    assert spread(paths, 100) == tuple(paths)
    assert spread(paths, 0) == ()


class Doubling(nn.Module):
    """Changes its own input, in a way that autograd's own checks do not see."""

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        return x * x


def test_a_block_that_changes_its_input_is_refused_where_it_would_be_computed_again() -> None:
    block = Doubling()
    checkpoint_blocks({"0": block})
    with torch.no_grad():
        assert block(torch.ones(2)).tolist() == [4, 4], "without gradients nothing is computed again"
    with pytest.raises(AtelierError, match=r"changes its own input.*Set gradient checkpointing to"):
        block(torch.ones(2, requires_grad=True) * 1)
