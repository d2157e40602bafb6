"""The host's tokenizers with a small embedding table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch


def tokenizing_clip(family: str) -> Any:
    """A stand-in for the host's CLIP of a family: its tokenizer, with a small random embedding table."""
    from comfy import sd1_clip, sdxl_clip

    tokenizer = {"sd1": sd1_clip.SD1Tokenizer, "sdxl": sdxl_clip.SDXLTokenizer}[family]()
    embedding = torch.nn.Embedding(49408, 4)
    part = SimpleNamespace(transformer=SimpleNamespace(get_input_embeddings=lambda: embedding))
    return SimpleNamespace(tokenizer=tokenizer, tokenize=tokenizer.tokenize_with_weights,
                           cond_stage_model=SimpleNamespace(clip_l=part, clip_g=part))
