"""Write the tables of docs/memory.md from the trainer's own estimate.

    python tools/memory_table.py [--check]

Nothing is measured: `atelier.train.memory.step_memory` counts shapes. Between the markers of the page everything is
replaced; with --check it is only compared.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "memory.md"
BEGIN, END = "<!-- computed by tools/memory_table.py -->", "<!-- end -->"

SDXL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280), "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10), "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816}
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "SD1.5 at 512": ({"cross_attention_dim": 768}, 64), "SDXL at 1024": (SDXL, 128)}
"""Their configurations where they differ from diffusers' defaults, and the side of the latents."""

BATCHES = (1, 2, 3, 4)
CARDS = (6, 8, 12, 16, 24)
RESERVE = 1.5
"""GiB of a card that training cannot use: the CUDA context, the desktop, fragmentation."""

GIB = 1024 ** 3


def unet_config(changes: dict[str, Any]) -> dict[str, Any]:
    """The whole configuration of a published UNet."""
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return dict(UNet2DConditionModel(**changes).config)


def counts() -> dict[tuple[str, bool, int], Any]:
    """`StepMemory` by model, checkpointing and batch size."""
    import torch

    from atelier.train.memory import step_memory
    from atelier.train.request.lora import LoraConfig

    counted: dict[tuple[str, bool, int], Any] = {}
    for name, (changes, side) in MODELS.items():
        config = unet_config(changes)
        for checkpointing in (False, True):
            for batch in BATCHES:
                counted[name, checkpointing, batch] = step_memory(
                    config, LoraConfig(rank=16), dtype=torch.bfloat16, batch=batch, height=side, width=side,
                    checkpointing=checkpointing)
    return counted


def tables(counted: dict[tuple[str, bool, int], Any]) -> str:
    """Both tables in Markdown: GiB by batch size, and what fits on which card."""
    rows = ["| model | checkpointing | weights | adapters | " + " | ".join(f"batch {n}" for n in BATCHES) + " |",
            "|---|---|---:|---:|" + "---:|" * len(BATCHES)]
    fits = ["| card | " + " | ".join(MODELS) + " |", "|---|" + "---|" * len(MODELS)]
    for name in MODELS:
        for checkpointing in (False, True):
            row = [counted[name, checkpointing, batch] for batch in BATCHES]
            cells = [row[0].weights, row[0].adapters, *(step.total for step in row)]
            rows.append(f"| {name} | {'on' if checkpointing else 'off'} | "
                        + " | ".join(f"{value / GIB:.2f}" for value in cells) + " |")
    for card in CARDS:
        fits.append(f"| {card} GB | " + " | ".join(_advice(counted, name, card) for name in MODELS) + " |")
    return "\n".join([*rows, "", *fits])


def _advice(counted: dict[tuple[str, bool, int], Any], name: str, card: int) -> str:
    def most(checkpointing: bool) -> int:
        return max((n for n in BATCHES if counted[name, checkpointing, n].total / GIB <= card - RESERVE), default=0)

    def described(batch: int) -> str:
        return f"batch {'4 or more' if batch == BATCHES[-1] else f'up to {batch}'}" if batch else "not at all"

    swapped = "" if most(True) else _swapped(name, card)
    return f"without: {described(most(False))}; with: {described(most(True))}{swapped}"


def _swapped(name: str, card: int) -> str:
    """Whether a picture at a time fits with blocks in main memory."""
    import torch

    from atelier.train.request.request import TrainRequest
    from atelier.train.unet_memory_plan import plan_unet

    changes, side = MODELS[name]
    data: Any = SimpleNamespace(items=[SimpleNamespace(height=side, width=side)])
    plan = plan_unet(unet_config(changes), data, TrainRequest(steps=1).override({"rank": 16}), torch.bfloat16,
                     int((card - RESERVE) * GIB))
    return f"; with {len(plan.swapped)} of {plan.blocks} blocks in main memory: batch up to 1" if plan.fits else ""


def page(text: str, content: str) -> str:
    """The page with `content` between its markers."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{content}\n{END}{rest.split(END)[1]}"


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(description="Write the tables of docs/memory.md.")
    parser.add_argument("--check", action="store_true", help="only say whether the page is what would be written")
    check = parser.parse_args().check
    sys.path += [str(ROOT)]
    text = PAGE.read_text(encoding="utf-8")
    new = page(text, tables(counts()))
    if check:
        print("as computed" if text == new else "run: python tools/memory_table.py")
        return int(text != new)
    PAGE.write_text(new, encoding="utf-8", newline="\n")
    print(PAGE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
