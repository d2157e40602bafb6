"""What drawing costs. A graphics card is pretended: what is told, and in which order, is what can be tested without."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from kit.pack import pack_module

pytestmark = pytest.mark.host


@pytest.fixture
def asked(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the card and of the host's models, in order."""
    measuring = pack_module(pack, "nodes.measuring")
    done: list[str] = []
    monkeypatch.setattr(measuring.host, "device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(measuring.management, "unload_all_models", lambda: done.append("unload"))
    monkeypatch.setattr(measuring.management, "soft_empty_cache", lambda: done.append("empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: done.append(f"reset {device}"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some Card")
    monkeypatch.setattr(measuring, "_outside_pytorch", lambda: 2)
    return done


def test_other_models_are_gone_before_one_is_measured_alone(pack: ModuleType, asked: list[str]) -> None:
    measuring = pack_module(pack, "nodes.measuring")
    measuring.reset_peak_memory()
    assert asked == ["reset cuda:0"]
    asked.clear()
    measuring.reset_peak_memory(alone=True)
    assert asked == ["unload", "empty", "reset cuda:0"]
    assert measuring.peak_memory() == 7


def test_without_a_card_nothing_is_unloaded_or_told(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = pack_module(pack, "nodes.measuring")
    monkeypatch.setattr(measuring.management, "unload_all_models", lambda: pytest.fail("unloaded"))
    measuring.reset_peak_memory(alone=True)
    assert measuring.peak_memory() is None


def test_another_card_or_type_of_number_is_told_apart(pack: ModuleType, asked: list[str],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = pack_module(pack, "nodes.measuring")
    first = measuring.computed_with()
    assert measuring.computed_with() == first
    monkeypatch.setattr(measuring.args, "port", measuring.args.port + 1)
    assert measuring.computed_with() == first
    monkeypatch.setattr(measuring.args, "fp16_unet", not measuring.args.fp16_unet)
    second = measuring.computed_with()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Another Card")
    assert len({first, second, measuring.computed_with()}) == 3
