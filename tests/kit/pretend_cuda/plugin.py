"""Loads the pretend device before torch, and has `torch.cuda` answer for it.

In the environment: PRETEND_CC, the card's compute capability ("7.5" computes in float16, "8.6" in bfloat16), and
PRETEND_BYTES, its memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from .build import library

assert "torch" not in sys.modules, "torch asks for its CUDA hooks once, when it is loaded"
os.environ["ATELIER_TEST_DEVICE"] = "cuda"
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "0")
LIBRARY = ctypes.CDLL(str(library()))

import torch  # noqa: E402
from kit.device import read_every_step  # noqa: E402

for _name in ("live", "peak"):
    getattr(LIBRARY, f"pretend_{_name}").restype = ctypes.c_longlong
LIBRARY.pretend_limit.argtypes = [ctypes.c_longlong]
LIBRARY.pretend_waits.restype = ctypes.c_char_p

TOTAL = int(os.environ.get("PRETEND_BYTES", 8 << 30))
CAPABILITY = tuple(int(part) for part in os.environ.get("PRETEND_CC", "8.6").split("."))
_NONE = 1 << 60


class PretendCard:
    """What a test asks of the card, and tells it."""

    def limit(self, more: int | None) -> None:
        """Let so many bytes more than are in use now be allocated; None: as many as one likes."""
        LIBRARY.pretend_limit(_NONE if more is None else LIBRARY.pretend_live() + more)

    def reset(self) -> None:
        """Count waits and peak from now on."""
        LIBRARY.pretend_reset()

    def waits(self) -> dict[str, int]:
        """How often the host has waited since `reset`, and for what."""
        entries = LIBRARY.pretend_waits().decode().split(";")
        return {name: int(count) for name, _, count in (entry.rpartition("=") for entry in entries if entry)}

    @property
    def live(self) -> int:
        """Bytes in use."""
        return LIBRARY.pretend_live()

    @property
    def peak(self) -> int:
        """The most bytes that were in use since `reset`."""
        return LIBRARY.pretend_peak()


class _Stream:
    """Of streams and events there is nothing to pretend: everything is done when it is asked for."""

    def __init__(self, *_: object) -> None:
        pass

    def wait_event(self, event: object) -> None:
        """Waits for nothing."""

    def record(self, stream: object = None) -> None:
        """Records nothing."""


def _answer_for_the_card() -> None:
    cuda: Any = torch.cuda
    cuda.Stream = cuda.Event = _Stream
    cuda.stream = lambda stream: contextlib.nullcontext()
    tensors: Any = torch.Tensor
    tensors.record_stream = lambda tensor, stream: None
    generator = torch.Generator("cuda")

    def answer(value: object) -> Any:  # a new one each time: the compiler tells functions apart by what they are
        return lambda *_, **__: value

    for name in ("_lazy_init", "init", "empty_cache", "ipc_collect", "synchronize", "set_device"):
        setattr(cuda, name, answer(None))
    cuda.current_stream = _Stream
    for name in ("is_available", "is_initialized"):
        setattr(cuda, name, answer(True))
    for name in ("is_current_stream_capturing", "_is_in_bad_fork"):
        setattr(cuda, name, answer(False))
    cuda.device_count = lambda: 1
    cuda.current_device = lambda: 0
    cuda.get_device_capability = lambda device=None: CAPABILITY
    cuda.get_device_name = lambda device=None: "Pretend"
    cuda.get_device_properties = lambda device=None: SimpleNamespace(
        name="Pretend", total_memory=TOTAL, major=CAPABILITY[0], minor=CAPABILITY[1], multi_processor_count=1,
        warp_size=32, regs_per_multiprocessor=65536, max_threads_per_multi_processor=1536)
    cuda.mem_get_info = lambda device=None: (TOTAL - LIBRARY.pretend_live(), TOTAL)
    cuda.reset_peak_memory_stats = lambda device=None: LIBRARY.pretend_reset()
    cuda.max_memory_allocated = lambda device=None: LIBRARY.pretend_peak()
    cuda.memory_allocated = lambda device=None: LIBRARY.pretend_live()
    cuda.memory_stats = lambda device=None: dict.fromkeys(
        ("active_bytes.all.current", "reserved_bytes.all.current"), LIBRARY.pretend_live())
    cuda.get_rng_state = lambda device=None: generator.get_state()
    cuda.set_rng_state = lambda state, device=None: generator.set_state(state)
    cuda.manual_seed = lambda seed: generator.manual_seed(seed)
    cuda.manual_seed_all = lambda seed: generator.manual_seed(seed)
    cuda.default_generators = (generator,)
    cuda.is_bf16_supported = lambda including_emulation=True: CAPABILITY >= (8, 0)
    torch.version.cuda = "13.0"
    internals: Any = torch._C
    internals._cuda_getCurrentRawStream = lambda device=None: 0  # bitsandbytes looks for it when it is imported


_answer_for_the_card()


@pytest.fixture
def real_card() -> None:
    """Skips the test."""
    pytest.skip("they need a real graphics card")


@pytest.fixture
def card() -> Iterator[PretendCard]:
    """The pretend card, without a limit at the end."""
    yield (found := PretendCard())
    found.limit(None)


@pytest.fixture(autouse=True)
def _read_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    read_every_step(monkeypatch)
