"""Which device a run is given, and the type that it computes in there, on machines with cards that this one lacks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from atelier.device_memory import free_cache
from atelier.errors import AtelierError
from atelier.train.devices import pick_device, pick_dtype


def machine(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, xpu: int = 0, mps: bool = False) -> None:
    """Have PyTorch find so many devices. One that cannot be used is counted by PyTorch all the same."""
    for kind, count in (("cuda", cuda), ("xpu", xpu)):
        monkeypatch.setattr(torch, kind, SimpleNamespace(is_available=lambda n=count: n > 0,
                                                         device_count=lambda n=count: n or 1))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(("there", "wanted"), [
    (dict(cuda=1, xpu=1, mps=True), "cuda"), (dict(xpu=1, mps=True), "xpu"), (dict(mps=True), "mps"), ({}, "cpu")])
def test_auto_is_the_best_device_there(monkeypatch: pytest.MonkeyPatch, there: dict[str, Any], wanted: str) -> None:
    machine(monkeypatch, **there)
    assert pick_device("auto") == torch.device(wanted)


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "xpu", "xpu:2", "mps", "cpu"])
def test_a_device_that_is_there_can_be_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    machine(monkeypatch, cuda=2, xpu=3, mps=True)
    assert pick_device(name) == torch.device(name)


@pytest.mark.parametrize(("name", "there"), [
    ("cuda:2", dict(cuda=2)), ("xpu:1", dict(xpu=1)), ("cuda", dict(xpu=1)), ("xpu", dict(cuda=1)), ("mps", {}),
    ("meta", dict(cuda=1)), ("toaster", {})])
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, there: dict[str, Any]
                                               ) -> None:
    machine(monkeypatch, **there)
    with pytest.raises(AtelierError, match=f"no device '{name}'"):
        pick_device(name)


def test_the_error_names_the_devices_there(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2, xpu=1, mps=True)
    with pytest.raises(AtelierError, match=r"Choose one of: auto, cpu, cuda:0, cuda:1, xpu:0, mps\."):
        pick_device("cuda:2")


@pytest.mark.parametrize(("kind", "wanted"), [("xpu", torch.bfloat16), ("mps", torch.float32)])
def test_the_type_suits_the_device(kind: str, wanted: torch.dtype) -> None:
    assert pick_dtype("auto", torch.device(kind)) == wanted
    assert pick_dtype("fp16", torch.device(kind)) == torch.float16


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_a_devices_own_cache_is_given_back(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    emptied: list[str] = []
    for each in ("cuda", "xpu", "mps"):
        monkeypatch.setattr(torch, each, SimpleNamespace(empty_cache=lambda name=each: emptied.append(name)))
    free_cache(torch.device(kind))
    assert emptied == [kind]
