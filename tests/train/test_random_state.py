"""Random numbers of every device are given back, whatever happened meanwhile."""

from __future__ import annotations

import pytest
import torch

from atelier.train.random_state import random_state_kept, random_stream

START = [torch.tensor([1]), torch.tensor([2])]


class Accelerator:
    """Stands for a device type's module: `count` devices, each with a state."""

    def __init__(self, count: int) -> None:
        self.states = START[:count]

    def get_rng_state(self, device: int = 0) -> torch.Tensor:
        return self.states[device]

    def set_rng_state(self, new_state: torch.Tensor, device: int = 0) -> None:
        self.states[device] = new_state

    def draw(self) -> None:
        self.states = [torch.tensor([9]) for _ in self.states]


@pytest.mark.parametrize(("kind", "count"), [("cuda", 2), ("xpu", 2), ("mps", 1)])
def test_every_device_gets_its_state_back(kind: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    device, module = Accelerator(count), getattr(torch, kind)
    monkeypatch.setattr(module, "get_rng_state", device.get_rng_state)
    monkeypatch.setattr(module, "set_rng_state", device.set_rng_state)
    if kind == "mps":
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    else:
        monkeypatch.setattr(module, "is_initialized", lambda: True)
        monkeypatch.setattr(module, "device_count", lambda: count)
    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt), random_state_kept():
        device.draw()
        torch.rand(3)
        raise KeyboardInterrupt
    assert device.states == START[:count]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_device_nobody_used_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *args: pytest.fail("the device was asked"))
    with random_state_kept():
        torch.rand(3)


def test_a_device_without_random_numbers_of_its_own_takes_those_of_the_processor() -> None:
    expected = torch.randn(3, generator=torch.Generator().manual_seed(7))
    for name in ("cpu", "meta"):
        assert torch.equal(torch.randn(3, generator=random_stream(torch.device(name), 7)), expected)
