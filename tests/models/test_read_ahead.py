"""Tensors that are read ahead are those that a plain read gives, to the bit, in order, and never many at once."""

from __future__ import annotations

import itertools
import threading
from typing import ClassVar

import pytest
import torch

from atelier.errors import AtelierError
from atelier.models.read_ahead import AHEAD, converted, read_as

HALVES = (torch.float16, torch.bfloat16)


@pytest.mark.parametrize(("stored", "wanted"), itertools.permutations((*HALVES, torch.float32), 2))
def test_every_number_is_rounded_as_pytorch_rounds_it(stored: torch.dtype, wanted: torch.dtype) -> None:
    every = torch.arange(-2**15, 2**15, dtype=torch.int16)
    numbers = every.view(stored) if stored in HALVES else every.view(torch.float16).float() * 1.0001
    ours, plain = converted(numbers, wanted), numbers.to(wanted)
    assert ours.dtype == wanted
    assert torch.equal(ours.isnan(), plain.isnan())
    assert torch.equal(ours[~ours.isnan()], plain[~plain.isnan()])
    assert torch.equal(ours.signbit() & ~ours.isnan(), plain.signbit() & ~plain.isnan())


@pytest.mark.parametrize("shape", [(), (0,), (3,), (700, 1000), (2**18,)])
def test_tensors_of_any_size_are_converted_whole(shape: tuple[int, ...]) -> None:
    numbers = torch.randn(shape).half()
    assert torch.equal(converted(numbers, torch.bfloat16), numbers.to(torch.bfloat16))
    turned = numbers.reshape(shape[::-1]).t() if len(shape) == 2 else numbers
    assert torch.equal(converted(turned, torch.bfloat16), turned.to(torch.bfloat16))


class Stored:
    """Counts how many were read and are not taken yet."""

    begun: ClassVar[list[int]] = []
    beside: ClassVar[bool] = False

    def __init__(self, number: int, damaged: bool = False) -> None:
        self.number, self.damaged = number, damaged

    def read(self) -> torch.Tensor:
        Stored.begun.append(self.number)
        Stored.beside |= threading.current_thread() is not threading.main_thread()
        if self.damaged:
            raise AtelierError("It is damaged.", "Download it again.")
        return torch.full((2, 2), float(self.number))


def test_all_are_there_in_order_and_few_are_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    Stored.begun.clear()
    ahead: list[int] = []
    plain = torch.Tensor.to

    def watched(tensor: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        ahead.append(len(Stored.begun) - int(tensor.flatten()[0]))
        return plain(tensor, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(torch.Tensor, "to", watched)
    found = read_as({f"t{number}": Stored(number) for number in range(9)}, torch.float16, "cpu")
    assert list(found) == [f"t{number}" for number in range(9)]
    assert [tensor[0, 0].item() for tensor in found.values()] == list(range(9))
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}
    assert Stored.beside
    assert max(ahead) <= AHEAD + 1


def test_what_cannot_be_read_is_said() -> None:
    with pytest.raises(AtelierError, match="damaged"):
        read_as({"a": Stored(0), "b": Stored(1, damaged=True), "c": Stored(2)}, torch.float32, "cpu")
