"""What the page and the workflow say of the x4 upscaler's memory is what is counted, and the count is right."""

from __future__ import annotations

import pytest
import torch

from tools.upscaler_memory import PAGE, _Live, memory, table
from tools.workflows import read_api


def test_the_count_knows_what_has_gone() -> None:
    model = torch.nn.Linear(1000, 1000)
    x = torch.zeros(1000, 1000)
    with torch.no_grad(), _Live(model) as live:
        for _ in range(5):
            model(x).relu()  # two of 4 MB live at one time, whatever came before
    assert live.most == 8_000_000


def test_the_page_and_the_note_say_what_is_counted() -> None:
    found = memory()
    assert table(found) in PAGE.read_text(encoding="utf-8")
    # Level by level, memory grows with the area; four times the area of 256, four times what lives beside the weights.
    weights = found[128][0] - (found[256][0] - found[128][0]) / 3
    assert found[512][0] - weights == pytest.approx(4 * (found[256][0] - weights), rel=0.01)
    note = next(node["_meta"]["note"] for node in read_api("upscale_x4_tiles").values()
                if node["class_type"] == "SplitImageToTileList")
    for said, side in ((" 1.2 GB", 128), (" 2.0 GB", 256), (" 6.6 GB", 512)):
        assert said in note and f"{max(found[side]):.1f} GB" == said.strip()
