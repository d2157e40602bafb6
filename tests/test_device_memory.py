"""Memory that runs out, by the errors PyTorch really raises and by those that other devices are known for."""

from __future__ import annotations

import platform
import weakref

import psutil
import pytest
import torch

from atelier.device_memory import OutOfMemory, explain_out_of_memory, free_cache, unify_memory_errors
from atelier.errors import AtelierError

MORE_THAN_ANY_MACHINE_HAS = 10**15


def test_a_processors_own_error_is_known() -> None:
    with pytest.raises(OutOfMemory, match="allocate"), unify_memory_errors():
        torch.empty(MORE_THAN_ANY_MACHINE_HAS)


def test_the_error_says_what_to_do() -> None:
    with pytest.raises(AtelierError, match=r"Memory ran out while loading\. Close"), \
            explain_out_of_memory("loading", "Close it."):
        torch.empty(MORE_THAN_ANY_MACHINE_HAS)


def test_what_refers_to_itself_is_freed_too() -> None:
    """As most models do, whose parts know the whole."""
    model = torch.nn.Module()
    model.itself = [model]
    gone = weakref.ref(model)
    del model
    free_cache(torch.device("cpu"), collect=False)  # as for each picture: quick, and not that
    assert gone() is not None
    free_cache(torch.device("cpu"))
    assert gone() is None


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps", "xpu"])
def test_cached_memory_goes_back_to_the_device_that_had_it(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[str] = []
    for name in ("cuda", "mps", "xpu"):
        monkeypatch.setattr(getattr(torch, name), "empty_cache", lambda name=name: emptied.append(name))
    free_cache(torch.device(device))
    assert emptied == ([] if device == "cpu" else [device])


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed: 9 GB)."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to "
                 "allocate 4000000000 bytes."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other call"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("Could not allocate tensor with 256 bytes. There is not enough GPU video memory available!"),
    MemoryError("Unable to allocate 3.2 GiB for an array with shape (1, 2)"),
], ids=["CUDA", "Apple", "Windows", "CUDA's driver", "cuBLAS", "DirectML", "NumPy"])
def test_each_devices_error_is_known(error: Exception) -> None:
    with pytest.raises(OutOfMemory) as raised, unify_memory_errors():
        raise error
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), ValueError("out of memory"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, unify_memory_errors():
        raise error
    assert raised.value is error


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory for itself")
def test_freed_memory_goes_back_to_the_system() -> None:
    """Pieces below glibc's threshold for maps of their own; the last one holds the heap's end in its place."""
    pieces = [torch.ones(16_000) for _ in range(4_000)]
    last = pieces.pop()
    full = psutil.Process().memory_info().rss
    pieces.clear()
    free_cache(torch.device("cpu"))
    assert full - psutil.Process().memory_info().rss > 200e6
    assert last.sum() == 16_000
