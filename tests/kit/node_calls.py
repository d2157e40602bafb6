"""Calls of nodes as the host makes them."""

from __future__ import annotations

from typing import Any

import torch
from kit.clip_models import random_pictures


def image_batch(count: int, size: tuple[int, int] = (24, 16), seed: int = 0) -> torch.Tensor:
    """An IMAGE of `count` random pictures of `size` (width, height)."""
    pictures = random_pictures([size] * count, seed)
    return torch.stack([torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8).reshape(size[1], size[0], 3)
                        for p in pictures]).float() / 255


def run_node(node: Any, **inputs: Any) -> tuple[Any, ...]:
    """Execute a node with every other widget at its default, wrapped in lists where the node takes lists."""
    schema = node.GET_SCHEMA()
    wrap = (lambda value: [value]) if schema.is_input_list else (lambda value: value)
    defaults = {i.id: wrap(getattr(i.default, "value", i.default)) for i in schema.inputs
                if not i.optional and getattr(i, "default", None) is not None}
    return node.execute(**{**defaults, **inputs}).result
