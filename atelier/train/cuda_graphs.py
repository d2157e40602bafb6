"""CUDA graphs by hand: work that is recorded once, and given to the card again by a single launch.

A graph repeats its kernels on the same addresses. It knows nothing of the Python that launched them: numbers of the
host are those of the recording, and what changes has to be copied into tensors that the recording read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch

from .denoiser import Denoiser
from .processes import Processes
from .request.request import TrainRequest

WARM_UPS = 3
"""Passes before a recording, as PyTorch's documentation has it: libraries choose kernels and make workspaces in them.
"""


class Graphs(Protocol):
    """Records work, and repeats it."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do `work` a few times."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record `work`; what is returned repeats it.

        Raises:
            RuntimeError: it cannot be recorded, or memory ran out.
        """
        ...

    def seconds(self, work: Callable[[], None]) -> float:
        """How long `work` takes, until the device has done it."""
        ...


class CudaGraphs:
    """`Graphs` of a CUDA device. All share one pool of memory, since only one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Callable[[], None]) -> None:
        """On a stream of its own, as a recording is."""
        with torch.cuda.device(self._device):
            stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                for _ in range(WARM_UPS):
                    work()
            current.wait_stream(stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Only this thread is held to what a recording allows: the host's others may use the card meanwhile."""
        with torch.cuda.device(self._device):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                work()
        return graph.replay

    def seconds(self, work: Callable[[], None]) -> float:
        """The shorter of two measurements."""
        found = []
        for _ in range(2):
            torch.cuda.synchronize(self._device)
            began = time.perf_counter()
            work()
            torch.cuda.synchronize(self._device)
            found.append(time.perf_counter() - began)
        return min(found)


def device_obstacle(device: torch.device) -> str:
    """Why there are no CUDA graphs on a device; "" where there are."""
    if device.type != "cuda":
        return "the device is no NVIDIA card"
    if not torch.backends.cuda.is_built() or torch.version.hip:
        return "this PyTorch has no CUDA graphs, or only those of AMD's cards, which were not tried"
    return ""


def step_obstacle(request: TrainRequest, denoiser: Denoiser, processes: Processes) -> str:
    """Why a step that was asked for cannot be recorded; "" where it can."""
    lora = request.lora
    if lora.dropout or lora.rank_dropout or any(
            isinstance(module, torch.nn.Dropout) and module.p > 0 for module in denoiser.network.modules()):
        return "dropout draws random numbers in the middle of a step"
    if request.preservation:
        return "output preservation runs the network without its adapters as well"
    if request.device.compile == "on":
        return "the model is compiled"
    if denoiser.encodes_captions:
        return "the text encoder is trained, and captions are cut into tokens in each step"
    if processes.count > 1:
        return "several processes train together"
    return denoiser.uncapturable
