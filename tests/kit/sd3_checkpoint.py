"""A small random SD 3 checkpoint of flow matching that the host detects: network, CLIP-L and a tiny autoencoder in one
file. Names and shapes are those of the published files."""

from __future__ import annotations

from pathlib import Path

import torch
from kit.checkpoint_sized import LAYERS
from kit.checkpoints import write
from kit.ldm_shapes import Shapes, TextShape, clip_shapes, prefixed

DEPTH, CHANNELS, PATCH = 2, 16, 2
TEXT_WIDTH, POOLED_WIDTH = 4096, 2048
"""Of SD 3's three text encoders side by side; what is absent is zero."""


def write_sd3(path: Path, seed: int = 0) -> Path:
    """Write the checkpoint, nearly all of it the text encoder with its vocabulary."""
    width = 64 * DEPTH  # the host takes one for the other
    tensors = [*prefixed("model.diffusion_model.", _network(width)),
               *prefixed("text_encoders.clip_l.transformer.text_model.", clip_shapes(TextShape(layers=LAYERS))),
               *prefixed("first_stage_model.taesd_encoder.", _encoder()),
               *prefixed("first_stage_model.taesd_decoder.", _decoder())]
    places = torch.randn(1, 16 * 16, width, generator=torch.Generator().manual_seed(seed)) * 0.1
    return write(path, tensors, seed=seed, extra={
        "model.diffusion_model.pos_embed": places.half(), "first_stage_model.vae_scale": torch.tensor(1.0),
        "first_stage_model.vae_shift": torch.tensor(0.0)})


def _linear(name: str, inner: int, out: int) -> Shapes:
    yield f"{name}.weight", (out, inner)
    yield f"{name}.bias", (out,)


def _conv(name: str, inner: int, out: int, size: int = 3, *, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (out, inner, size, size)
    if bias:
        yield f"{name}.bias", (out,)


def _network(width: int) -> Shapes:
    yield from _conv("x_embedder.proj", CHANNELS, width, PATCH)
    yield from _linear("context_embedder", TEXT_WIDTH, width)
    for name, inner in (("t_embedder", 256), ("y_embedder", POOLED_WIDTH)):
        yield from _linear(f"{name}.mlp.0", inner, width)
        yield from _linear(f"{name}.mlp.2", width, width)
    for block in range(DEPTH):
        for side in ("x_block", "context_block"):
            name = f"joint_blocks.{block}.{side}"
            last = side == "context_block" and block == DEPTH - 1  # only read by the picture's side
            yield from _linear(f"{name}.attn.qkv", width, 3 * width)
            yield from _linear(f"{name}.adaLN_modulation.1", width, (2 if last else 6) * width)
            if not last:
                yield from _linear(f"{name}.attn.proj", width, width)
                yield from _linear(f"{name}.mlp.fc1", width, 4 * width)
                yield from _linear(f"{name}.mlp.fc2", 4 * width, width)
    yield from _linear("final_layer.linear", width, PATCH * PATCH * CHANNELS)
    yield from _linear("final_layer.adaLN_modulation.1", width, 2 * width)


def _block(name: str) -> Shapes:
    for layer in (0, 2, 4):
        yield from _conv(f"{name}.conv.{layer}", 64, 64)


def _encoder() -> Shapes:
    yield from _conv("0", 3, 64)
    for layer in (1, 3, 4, 5, 7, 8, 9, 11, 12, 13):
        yield from _block(str(layer))
    for layer in (2, 6, 10):
        yield from _conv(str(layer), 64, 64, bias=False)
    yield from _conv("14", 64, CHANNELS)


def _decoder() -> Shapes:
    yield from _conv("1", CHANNELS, 64)
    for layer in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18):
        yield from _block(str(layer))
    for layer in (7, 12, 17):
        yield from _conv(str(layer), 64, 64, bias=False)
    yield from _conv("19", 64, 3)
