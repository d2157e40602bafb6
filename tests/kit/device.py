"""The device that tests compute on: the processor, or what ATELIER_TEST_DEVICE names."""

from __future__ import annotations

import os

import torch


def chosen_device() -> torch.device:
    return torch.device(os.environ.get("ATELIER_TEST_DEVICE", "cpu"))
