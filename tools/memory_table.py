"""Write the tables of docs/memory.md from the trainer's own estimate.

    python tools/memory_table.py [--check]

Nothing is measured: `atelier.train.unet_memory.count_unet` counts shapes. Between the markers of the page everything is
replaced; with --check it is only compared.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
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


def counts() -> dict[tuple[str, int], Any]:
    """`StepCount` by model and batch size."""
    import torch

    from atelier.train.request.lora import LoraConfig
    from atelier.train.unet_memory import count_unet

    return {(name, batch): count_unet(unet_config(changes), LoraConfig(rank=16), dtype=torch.bfloat16, batch=batch,
                                      height=side, width=side)
            for name, (changes, side) in MODELS.items() for batch in BATCHES}


def planned(count: Any, free: float | None, **choices: Any) -> Any:
    """`MemoryPlan` for so many bytes of a card."""
    from atelier.train.memory_plan import plan_memory
    from atelier.train.request.device import DeviceConfig

    return plan_memory(count, DeviceConfig(**choices), None if free is None else int(free))


def tables(counted: dict[tuple[str, int], Any]) -> str:
    """Both tables in Markdown: GiB by batch size, and what fits on which card."""
    rows = ["| model | checkpointing | weights | adapters | " + " | ".join(f"batch {n}" for n in BATCHES) + " |",
            "|---|---|---:|---:|" + "---:|" * len(BATCHES)]
    fits = ["| card | " + " | ".join(MODELS) + " |", "|---|" + "---|" * len(MODELS)]
    for name in MODELS:
        for choice in ("off", "on"):
            one = counted[name, 1]
            needs = [planned(counted[name, batch], None, gradient_checkpointing=choice).need for batch in BATCHES]
            rows.append(f"| {name} | {choice} | "
                        + " | ".join(f"{value / GIB:.2f}" for value in (one.weights, one.adapters, *needs)) + " |")
    for card in CARDS:
        fits.append(f"| {card} GB | " + " | ".join(_advice(counted, name, card) for name in MODELS) + " |")
    return "\n".join([*rows, "", *fits])


def _advice(counted: dict[tuple[str, int], Any], name: str, card: int) -> str:
    free = (card - RESERVE) * GIB

    def most(choice: str) -> int:
        return max((batch for batch in BATCHES if planned(counted[name, batch], free, gradient_checkpointing=choice,
                                                         blocks_to_swap=0).fits), default=0)

    def described(batch: int) -> str:
        return f"batch {'4 or more' if batch == BATCHES[-1] else f'up to {batch}'}" if batch else "not at all"

    plan = planned(counted[name, 1], free)
    swapped = (f"; with {len(plan.swapped)} of {plan.blocks} blocks in main memory: batch up to 1"
               if plan.swapped and plan.fits else "")
    return f"without: {described(most('off'))}; with: {described(most('on'))}{swapped}"


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
