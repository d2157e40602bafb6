"""How the time of a step on a card is taken. What recordings compute is compared in tests/train/card_step.py."""

from __future__ import annotations

import pytest
import torch

from atelier.train.cuda_graphs import CudaGraphs


def test_a_measurement_begins_and_ends_when_the_card_has_nothing_left_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a card that works off what it is given only when somebody waits for it."""
    clock, waiting, runs = [100.0], [9.0], iter([3.0, 4.0])  # 9 s of an earlier step's work are still to be done

    def synchronize(device: torch.device) -> None:
        clock[0] += sum(waiting)
        waiting.clear()

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", tuple)
    monkeypatch.setattr("atelier.train.cuda_graphs.time.perf_counter", lambda: clock[0])
    assert CudaGraphs(torch.device("cuda", 0)).seconds(lambda: waiting.append(next(runs))) == 3.0
