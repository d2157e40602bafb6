"""Exclusive use of the host's device."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from kit.pack import pack_module

pytestmark = pytest.mark.host


def test_other_models_leave_the_device_before_training(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    device, calls = pack_module(pack, "nodes.host.device"), []
    monkeypatch.setattr(device.management, "unload_all_models", lambda: calls.append("unloaded"))
    with device.exclusive_device():
        calls.append("training")
    assert calls == ["unloaded", "training"]


def test_a_model_goes_back_to_the_processor_even_after_an_error(pack: ModuleType) -> None:
    device, places = pack_module(pack, "nodes.host.device"), []

    class Module(torch.nn.Linear):
        def to(self, *args: object, **kwargs: object) -> Module:
            places.append(args[0])
            return super().to(*args, **kwargs)

    with pytest.raises(KeyError), device.on_device(Module(2, 2)):
        assert places == [device.torch_device()]
        raise KeyError
    assert places[1:] == ["cpu"]


def test_a_model_gets_room_on_the_device_before_it_moves_there(pack: ModuleType,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    device, freed = pack_module(pack, "nodes.host.device"), []
    monkeypatch.setattr(device.management, "free_memory", lambda size, where: freed.append((size, where)))
    module = torch.nn.Linear(1000, 1000)
    with device.on_device(module):
        (size, where), = freed
        assert size > sum(parameter.nbytes for parameter in module.parameters()) and where == device.torch_device()


def test_exclusive_device_enables_gradients_and_restores_inference_mode(pack: ModuleType) -> None:
    device = pack_module(pack, "nodes.host.device")
    with torch.inference_mode():
        with device.exclusive_device():
            weight = torch.ones(2, requires_grad=True)
            (weight * weight).sum().backward()
            assert weight.grad is not None
        assert torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()


def test_used_memory_is_that_of_all_programs(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pack_module(pack, "nodes.host.device")
    monkeypatch.setattr(module.management, "get_total_memory", lambda device: 24.0)
    monkeypatch.setattr(module.management, "get_free_memory", lambda device: 10.0)
    assert module.memory_usage() == (14, 24)
