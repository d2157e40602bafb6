"""What a run does about the memory of its device: gradient checkpointing, and blocks that wait in main memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .request.device import DeviceConfig
from .step_count import StepCount

GIB = 1024**3
HEADROOM = 1.15
"""Allowance over what is counted as allocated anew in each step: allocator rounding, workspaces, the optimiser's
temporaries."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """How a step is made to fit."""

    checkpointing: bool
    swapped: tuple[str, ...]
    """Paths of the blocks whose frozen weights wait in main memory."""
    blocks: int
    """Of the network."""
    need: int | None
    """Bytes on the device; None: not counted."""
    free: int | None
    """Bytes that are free there before the weights are; None: the device does not say."""
    graphs: int = 0
    """Bytes that CUDA graphs take beside that: what a pass allocates, in a pool of their own, and gradients."""

    @property
    def fits(self) -> bool:
        """Whether the step has room, as far as that is known."""
        return self.need is None or self.free is None or self.need <= self.free

    @property
    def has_room_for_graphs(self) -> bool:
        """Whether CUDA graphs fit beside a plain step, which they are compared with."""
        return self.need is not None and self.free is not None and self.need + self.graphs <= self.free

    @property
    def notes(self) -> tuple[str, ...]:
        """For the report: what the person would not expect."""
        found = () if self.fits else (self.text(),)
        if self.swapped:
            found += (f"The weights of {len(self.swapped)} of {self.blocks} blocks waited in main memory.",)
        return found

    def text(self) -> str:
        """A sentence for a person; empty where nothing is known."""
        if self.need is None:
            return "The memory of a step could not be counted for this model." if self.free is not None else ""
        means = ["gradient checkpointing"] * self.checkpointing
        if self.swapped:
            means.append(f"{len(self.swapped)} of {self.blocks} blocks in main memory")
        how = f" with {' and '.join(means)}" if means else ""
        said = f"A training step takes about {self.need / GIB:.1f} GiB{how}"
        if self.free is None:
            return said + "."
        said += f", and {self.free / GIB:.1f} GiB are free"
        return f"{said}." if self.fits else (
            f"{said}: expect it to run out of memory. Choose a smaller resolution, batch size or rank.")


def plan_memory(count: StepCount | None, config: DeviceConfig, free: int | None) -> MemoryPlan:
    """Choose the cheapest way that fits: as it is, with checkpointing, or with blocks in main memory as well.

    Args:
        count: None where it could not be counted: then checkpointing is on wherever memory is scarce.
        config: "auto" choices are made here, others kept.
        free: Bytes free on the device; None for one that shares the machine's memory, which needs no plan.
    """
    blocks = count.blocks if count else {}
    choice = config.gradient_checkpointing
    checkpointing = choice == "on" or (choice == "auto" and free is not None and (
        count is None or _need(count, False, ()) > free))
    swapped: tuple[str, ...] = ()
    if config.blocks_to_swap >= 0:
        swapped = spread(blocks, config.blocks_to_swap)
    elif count and free is not None and checkpointing:
        for number in range(len(blocks) + 1):
            swapped = spread(blocks, number)
            if _need(count, True, swapped) <= free:
                break
    if swapped and choice == "auto":
        checkpointing = True
    need = _need(count, checkpointing, swapped) if count else None
    graphs = int(_kept(count, checkpointing) * HEADROOM + count.adapters / 4) if count else 0
    return MemoryPlan(checkpointing=checkpointing, swapped=swapped, blocks=len(blocks), need=need, free=free,
                      graphs=graphs)


def spread(blocks: Mapping[str, int], number: int) -> tuple[str, ...]:
    """So many of the blocks, evenly spread: while one is copied, those between compute."""
    paths = list(blocks)
    number = min(number, len(paths))
    return tuple(paths[(2 * index + 1) * len(paths) // (2 * number)] for index in range(number))


def _need(count: StepCount, checkpointing: bool, swapped: tuple[str, ...]) -> int:
    """Two of the swapped blocks are on the device at a time: the one that computes, and the next."""
    away = sorted((count.blocks[path] for path in swapped), reverse=True)
    weights = count.weights - sum(away) + sum(away[:2])
    return int(weights + count.adapters + _kept(count, checkpointing) * HEADROOM)


def _kept(count: StepCount, checkpointing: bool) -> int:
    return count.kept_with_checkpointing if checkpointing else count.kept
