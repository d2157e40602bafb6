"""A LoRA as core's trainer writes it."""

from __future__ import annotations

import torch

LAYER = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"


def core_lora(width: int = 32, *, biases: bool = True) -> dict[str, torch.Tensor]:
    """A LORA_MODEL as core's trainer returns it: one adapter, and the differences of two biases."""
    stem = f"diffusion_model.{LAYER}"
    state = {f"{stem}.lora_up.weight": torch.randn(width, 2), f"{stem}.lora_down.weight": torch.randn(2, width),
             f"{stem}.alpha": torch.tensor(1.0)}
    return state | {"diffusion_model.out.2.diff_b": torch.randn(4), "diffusion_model.out.0.diff_b": torch.randn(width)
                    } if biases else state
