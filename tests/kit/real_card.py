"""A pytest plugin (`-p kit.real_card`) that runs tests on this machine's graphics card, as `make card` does.

Sums are in a fixed order where PyTorch has such kernels, so that resumed runs can be compared to the last bit; it
warns where it has none.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from kit.device import read_every_step

os.environ["ATELIER_TEST_DEVICE"] = "cuda"
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS sums in a fixed order

import torch

if not torch.cuda.is_available():
    raise pytest.UsageError("kit.real_card needs a graphics card that PyTorch can use; there is none.")


class RealCard:
    """What tests ask of a card, as `kit.pretend_cuda.plugin.PretendCard` answers it."""

    def __init__(self) -> None:
        self._watch = ExitStack()
        self._seen: list[warnings.WarningMessage] = []

    def limit(self, more: int | None) -> None:
        """None, for no limit. PyTorch takes memory from a card in blocks of megabytes, so that no byte can be named."""
        if more is not None:
            pytest.skip("their limit is to the byte, which only the pretend device knows; "
                        "tests/train/card_real.py has a real one")

    def reset(self) -> None:
        """Count waits and peak from now on."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self.close()
        self._seen = self._watch.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")

    def waits(self) -> dict[str, int]:
        """How often the host has waited since `reset`, by the message."""
        found = Counter(str(one.message) for one in self._seen if "synchronizing CUDA operation" in str(one.message))
        self.close()
        return dict(found)

    def close(self) -> None:
        """Count no more."""
        torch.cuda.set_sync_debug_mode("default")
        self._watch.close()

    @property
    def live(self) -> int:
        """Bytes in use."""
        return torch.cuda.memory_allocated()

    @property
    def peak(self) -> int:
        """The most bytes that were in use since `reset`."""
        return torch.cuda.max_memory_allocated()


@pytest.fixture
def real_card() -> None:
    """Nothing; the pretend device skips the tests that ask for it."""


@pytest.fixture
def card() -> Iterator[RealCard]:
    """The card, which counts nothing at the end."""
    yield (found := RealCard())
    found.close()


@pytest.fixture(autouse=True)
def _as_on_a_processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    read_every_step(monkeypatch)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    # No TF32: its numbers have ten bits, and fp32 is compared with the processor's.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.use_deterministic_algorithms(True, warn_only=True)  # the suite's own fixture puts it back
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
