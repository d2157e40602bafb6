"""Forward and backward pass of a training step as CUDA graphs, one for each shape of its inputs.

At batch 1 a card computes a step faster than the host launches its kernels. A graph has the forward pass, the loss, the
backward pass and the copies of the gradients in float32. All else stays as it is without graphs: random numbers are
drawn, inputs copied, gradients added up and clipped, and the optimiser works, outside. So any optimiser, float16's loss
scale and accumulation work alike, results are the same, and a run may change between both ways at any step.

Nothing is trusted: a graph is recorded with other inputs than it is then compared with, and used only if loss and
gradients are those of the plain pass and, unless asked for, if it is faster.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..device_memory import free_cache
from .adapters import Adapters
from .cuda_graphs import Graphs
from .loss_inputs import LossInputs
from .loss_scale import LossScale

log = logging.getLogger("atelier")

PLAIN_USES = 2
"""So many times a shape is computed plainly first: recording takes as long as several steps."""
MOST_SHAPES = 16
"""More than these are computed plainly: each graph keeps inputs, and its launches, on the card."""
TOLERANCE = (0.01, 0.05)
"""Of a graph's loss, relative, and of all its gradients, as the length of the difference over their length. The kernels
are the same; some of them add in no fixed order."""
LEAST_GAIN = 0.95
"""A graph is used by itself if it takes at most so much of the plain pass's time."""


class CapturedSteps:
    """Computes forward and backward passes by graphs where it has them.

    Args:
        loss: Of inputs; a scalar. It must only give work to the device.
        adapters: Whose gradients are wanted.
        graphs: None: everything is computed plainly.
        always: Use graphs though they are no faster.
    """

    def __init__(self, loss: Callable[[LossInputs], Tensor], adapters: Adapters, graphs: Graphs | None, *,
                 always: bool = False) -> None:
        self._loss, self._adapters, self._graphs, self._always = loss, adapters, graphs, always
        self._gradients: list[Tensor] = []
        self._captured: dict[tuple[object, ...], _CapturedPass] = {}
        self._plain: set[tuple[object, ...]] = set()
        self._seen: dict[tuple[object, ...], int] = {}
        self.notes: list[str] = []
        """For the report: why passes were computed plainly that could have been expected to be graphs."""

    @property
    def shapes(self) -> int:
        """How many shapes have a graph."""
        return len(self._captured)

    def __call__(self, inputs: LossInputs, weight: float, scale: LossScale) -> Tensor | None:
        """Add the gradients of `weight` times the loss to the masters.

        Args:
            inputs: Of the pass.
            weight: The pass's share of the step.
            scale: Of float16.

        Returns:
            The loss, a scalar that holds until the next call; None where nothing was done, since this pass has to be
            computed plainly.
        """
        if self._graphs is None:
            return None
        shapes = (scale.on, *inputs.shapes)
        found = self._captured.get(shapes)
        if found is None:
            found = self._try(self._graphs, shapes, inputs, weight, scale)
        if found is None:
            return None
        found.fill(inputs, weight, scale)
        found.replay()
        self._adapters.add_gradients(found.used)
        return found.loss

    def give_up(self, reason: str) -> bool:
        """Compute everything plainly from now on; returns whether that gave memory back."""
        if self._graphs is None:
            return False
        held = bool(self._captured)
        self._graphs = None
        self._captured.clear()
        self._gradients.clear()
        free_cache(self._adapters.masters[0].device)
        self._say(f"Training goes on without CUDA graphs: {reason}.")
        return held

    def _try(self, graphs: Graphs, shapes: tuple[object, ...], inputs: LossInputs, weight: float, scale: LossScale
             ) -> _CapturedPass | None:
        """A graph for these shapes; None where there is none, yet or at all."""
        self._seen[shapes] = self._seen.get(shapes, 0) + 1
        if self._seen[shapes] <= PLAIN_USES or shapes in self._plain:
            return None
        if len(self._captured) == MOST_SHAPES:
            self._plain.add(shapes)
            self._say(f"The batches have more than {MOST_SHAPES} shapes; the others are computed without CUDA graphs.")
            return None
        failure = ""
        try:
            return self._recorded(graphs, shapes, inputs, weight, scale)
        except RuntimeError as error:  # a full card is one, too
            failure = str(error).strip().partition("\n")[0] or type(error).__name__
        # Only here: while the error was being handled, it held what the pass had computed.
        self.give_up(f"the step could not be recorded ({failure})")
        return None

    def _recorded(self, graphs: Graphs, shapes: tuple[object, ...], inputs: LossInputs, weight: float,
                  scale: LossScale) -> _CapturedPass | None:
        if not self._gradients:
            self._gradients = [torch.zeros_like(master) for master in self._adapters.masters]
        found = _CapturedPass(self._loss, self._adapters, self._gradients, inputs, scale)
        found.inputs.noisy.zero_()
        found.inputs.target.zero_()
        graphs.warm_up(found.work)
        found.replay = graphs.capture(found.work)
        found.fill(inputs, weight, scale)
        found.work()
        plain = found.results()
        if not plain.isfinite().all():  # an overflow, which nothing can be compared with
            self._seen[shapes] = 0
            return None
        found.clear()
        found.replay()
        if wrong := _difference(found.results(), plain):
            self.give_up(f"a recorded step gave another result than a plain one ({wrong})")
            return None
        if not self._always and graphs.seconds(found.replay) > LEAST_GAIN * graphs.seconds(found.work):
            self._plain.add(shapes)
            log.info("Batches of shape %s are computed without CUDA graphs, which are no faster.",
                     tuple(inputs.noisy.shape))
            return None
        self._captured[shapes] = found
        log.info("Steps of shape %s are replayed as CUDA graphs.", tuple(inputs.noisy.shape))
        return found

    def _say(self, sentence: str) -> None:
        if sentence not in self.notes:
            log.warning(sentence)
            self.notes.append(sentence)


class _CapturedPass:
    """One forward and backward pass over tensors that stay where they are."""

    def __init__(self, loss: Callable[[LossInputs], Tensor], adapters: Adapters, gradients: list[Tensor],
                 inputs: LossInputs, scale: LossScale) -> None:
        self.inputs = inputs.copy()
        self.replay: Callable[[], None] = self.work
        self._loss_of, self._adapters, self._gradients, self._scaled = loss, adapters, gradients, scale.on
        self._weight, self._scale, self._inverse, self.loss = (
            torch.zeros((), device=inputs.noisy.device) for _ in range(4))
        self.used: list[tuple[Tensor, Tensor]] = []
        """Each master that has a gradient, and that gradient, float32."""

    def work(self) -> None:
        """The pass itself. What is recorded."""
        loss = self._loss_of(self.inputs)
        scaled = loss * self._scale if self._scaled else loss
        found = torch.autograd.grad(scaled * self._weight, self._adapters.parameters, allow_unused=True)
        with torch.no_grad():
            used = [(own, master, gradient) for own, master, gradient in zip(
                self._gradients, self._adapters.masters, found, strict=True) if gradient is not None]
            self.used = [(master, own) for own, master, _ in used]
            gradients: Any = torch
            gradients._foreach_copy_([own for own, _, _ in used], [gradient for _, _, gradient in used])
            if self._scaled:
                gradients._foreach_mul_([own for own, _, _ in used], self._inverse)
            self.loss.copy_(loss)

    @torch.no_grad()
    def fill(self, inputs: LossInputs, weight: float, scale: LossScale) -> None:
        """Copy in what the next pass computes with."""
        self.inputs.fill(inputs)
        self._weight.fill_(weight)
        if self._scaled:
            self._scale.copy_(scale.value)
            self._inverse.copy_(1 / scale.value)

    @torch.no_grad()
    def clear(self) -> None:
        """Forget the results of the last pass."""
        self.loss.zero_()
        for _, gradient in self.used:
            gradient.zero_()

    def results(self) -> Tensor:
        """The loss and all gradients of the last pass, in one vector."""
        return torch.cat([self.loss.reshape(1), *(gradient.flatten() for _, gradient in self.used)])


def _difference(found: Tensor, plain: Tensor) -> str:
    """What is wrong with the results of a graph; "" where nothing is."""
    of_loss, of_gradients = TOLERANCE
    if not (found[0] - plain[0]).abs() <= of_loss * plain[0].abs():
        return f"loss {found[0].item():.6g} instead of {plain[0].item():.6g}"
    if not (found[1:] - plain[1:]).norm() <= of_gradients * plain[1:].norm():
        return "other gradients"
    return ""
