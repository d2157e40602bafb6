"""Exclusive use of the host's device."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from kit.pack import pack_module

pytestmark = pytest.mark.host


def test_exclusive_device_enables_gradients_and_restores_inference_mode(pack: ModuleType) -> None:
    device = pack_module(pack, "nodes.host.device")
    with torch.inference_mode():
        with device.exclusive_device():
            weight = torch.ones(2, requires_grad=True)
            (weight * weight).sum().backward()
            assert weight.grad is not None
        assert torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()
