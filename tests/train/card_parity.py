"""A training step on a card and on the processor: the same losses and gradients, within what its numbers can hold.

`test_card.py` runs this file on the pretend device, `make card` on a real one.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kit.training import MemorySet, denoiser_of, tiny_unet
from kit.training_loop import QUIET, request
from torch import Tensor

from atelier.train.request.request import TrainRequest
from atelier.train.trainer import Trainer

pytestmark = pytest.mark.gpu

TOLERANCE = {torch.float32: (1e-4, 1e-3), torch.bfloat16: (0.02, 0.1), torch.float16: (0.005, 0.03)}
"""Of the loss, relative; and of all gradients together, as the length of the difference over their length. bfloat16 has
8 bits, float16 has 11, and a gradient is what is left of sums of either."""


def gradients(device: str, dtype: torch.dtype, wanted: TrainRequest, monkeypatch: pytest.MonkeyPatch
              ) -> tuple[float, Tensor]:
    """The loss of a first step, and all its gradients as one vector, in float32 on the processor.

    Random numbers are the processor's on every device. B is not zero, so that A has gradients too.
    """
    place = torch.device(device)
    drawn = "atelier.train.trainer.random_stream"
    monkeypatch.setattr(drawn, lambda device, seed: torch.Generator().manual_seed(seed % 2**63))
    unet = tiny_unet().to(place, dtype)
    trainer = Trainer(denoiser_of(unet, place, dtype), MemorySet.of(4, size=16), wanted)
    stream = torch.Generator().manual_seed(1)
    trainer.adapters.load([master.cpu() + 0.02 * torch.randn(master.shape, generator=stream)
                           for master in trainer.adapters.masters])
    trainer.adapters.train(True)
    loss = trainer._accumulate(0, trainer.initial_loss_scale)
    return loss.item(), torch.cat([master.grad.flatten().cpu() for master in trainer.adapters.masters
                                   if master.grad is not None])


@pytest.mark.parametrize("options", [{}, dict(kind="dora"), dict(gradient_accumulation=2, min_snr_gamma=5.0)], ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_a_step_computes_what_the_processor_computes(dtype: torch.dtype, options: dict[str, Any],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = request(dict(rank=4), QUIET | options, steps=4)
    loss, found = gradients("cuda", dtype, wanted, monkeypatch)
    expected_loss, expected = gradients("cpu", torch.float32, wanted, monkeypatch)
    of_loss, of_gradients = TOLERANCE[dtype]
    assert loss == pytest.approx(expected_loss, rel=of_loss)
    assert (found - expected).norm() < of_gradients * expected.norm()
    assert found.norm() > 0 and found.isfinite().all()
