"""Peak memory and the description of the environment, with a simulated graphics card."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from kit.pack import pack_module

pytestmark = pytest.mark.host


@pytest.fixture
def calls(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Simulate a card; returns the calls to it and to the host's model management, in order."""
    peak_memory = pack_module(pack, "nodes.host.peak_memory")
    made_calls: list[str] = []
    monkeypatch.setattr(peak_memory, "torch_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(peak_memory.management, "unload_all_models", lambda: made_calls.append("unload"))
    monkeypatch.setattr(peak_memory.management, "soft_empty_cache", lambda: made_calls.append("empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: made_calls.append(f"reset {device}"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some Card")
    monkeypatch.setattr(peak_memory, "_outside_pytorch", lambda: 2)
    return made_calls


def test_alone_unloads_other_models_first(pack: ModuleType, calls: list[str]) -> None:
    peak_memory = pack_module(pack, "nodes.host.peak_memory")
    peak_memory.reset_peak_memory()
    assert calls == ["reset cuda:0"]
    calls.clear()
    peak_memory.reset_peak_memory(alone=True)
    assert calls == ["unload", "empty", "reset cuda:0"]
    assert peak_memory.peak_memory() == 7


def test_without_a_card_nothing_is_unloaded_or_measured(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    peak_memory = pack_module(pack, "nodes.host.peak_memory")
    monkeypatch.setattr(peak_memory.management, "unload_all_models", lambda: pytest.fail("unloaded"))
    peak_memory.reset_peak_memory(alone=True)
    assert peak_memory.peak_memory() is None


def test_the_environment_changes_with_card_and_precision(pack: ModuleType, calls: list[str],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    peak_memory = pack_module(pack, "nodes.host.peak_memory")
    first = peak_memory.compute_environment()
    assert peak_memory.compute_environment() == first
    monkeypatch.setattr(peak_memory.args, "port", peak_memory.args.port + 1)
    assert peak_memory.compute_environment() == first
    monkeypatch.setattr(peak_memory.args, "fp16_unet", not peak_memory.args.fp16_unet)
    second = peak_memory.compute_environment()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Another Card")
    assert len({first, second, peak_memory.compute_environment()}) == 3
