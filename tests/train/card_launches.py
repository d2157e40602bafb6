"""How many kernels a step gives a card. Full depth and small widths: the number does not depend on widths.

`test_card.py` runs this file on the pretend device.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from kit.launches import CountLaunches, OneKernelAttention
from kit.loras import PUBLISHED
from kit.training import MemorySet, denoiser_of
from kit.training_loop import QUIET, request
from torch import Tensor

from atelier.train.trainer import Trainer

pytestmark = pytest.mark.gpu
NARROW: dict[str, dict[str, Any]] = {
    "sd1": dict(block_out_channels=(32, 32, 32, 32), attention_head_dim=4, cross_attention_dim=32),
    "sdxl": dict(block_out_channels=(32, 32, 32), attention_head_dim=4, cross_attention_dim=32,
                 addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 48)}


class NarrowSet(MemorySet):
    def text(self, index: int, variant: int) -> dict[str, Tensor]:
        return super().text(index, variant) | {"pooled": torch.zeros(16)}


@pytest.mark.parametrize(("family", "most"), [("sd1", 2100), ("sdxl", 6800)])
def test_a_step_has_few_launches(family: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """diffusers' script with PEFT and autocast has 3568 and 13246."""
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention",
                        lambda query, key, value, **_: OneKernelAttention.apply(query, key, value))
    unet = UNet2DConditionModel(**{**PUBLISHED[family], **NARROW[family]}).to("cuda", torch.bfloat16)
    card = torch.device("cuda")
    data = NarrowSet(MemorySet.of(2, size=16).items) if family == "sdxl" else MemorySet.of(2, size=16)
    trainer = Trainer(denoiser_of(unet, card, torch.bfloat16), data,
                      request(dict(rank=4), QUIET, batch_size=1, steps=9))
    for step in range(3):
        trainer.train_step(step, trainer.initial_loss_scale)
    with CountLaunches() as count:
        trainer.train_step(3, trainer.initial_loss_scale)
    assert 0.5 * most < count.total <= most, count.calls.most_common(20)
