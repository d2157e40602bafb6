"""Random models that see, steer and enlarge: Depth Anything 3, a ControlNet, Real-ESRGAN, the x4 upscaler.

They are small, and in the layouts that the host detects.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from kit.checkpoints import SD1_SHAPES, X4_SHAPES, random_values, write
from kit.ldm_shapes import Shapes, open_clip_shapes, prefixed, unet_shapes, vae_shapes
from safetensors.torch import save_file

DEPTH_WIDTH, DEPTH_LAYERS, HEAD = 384, 12, (8, 8, 16, 16)
"""The host insists on the width and depth of ViT-S; the head may be as narrow as one likes."""


def write_depth_model(path: Path, seed: int = 0) -> Path:
    """Depth Anything 3 for single pictures (DINOv2 ViT-S and a DPT head with sky) in the host's own names, 44 MB."""
    # Nowhere sky, or random weights could make all of it black.
    no_sky = {"head.scratch.sky_output_conv2.2.bias": torch.tensor([-100.0], dtype=torch.float16)}
    return write(path, [item for item in _depth_shapes() if item[0] not in no_sky], seed=seed, extra=no_sky)


def write_controlnet(path: Path, seed: int = 0) -> Path:
    """A ControlNet for the small Stable Diffusion 1.x checkpoint, in the original names, 39 MB."""
    name, base = "input_hint_block.14.weight", SD1_SHAPES["small"].unet.channels
    # Eight layers leave little of the picture; the last one makes up for it.
    loud = torch.randn(base, 256, 3, 3, generator=torch.Generator().manual_seed(seed)).half()
    return write(path, [item for item in _controlnet_shapes() if item[0] != name], seed=seed, extra={name: loud})


def write_x4_upscaler(path: Path, seed: int = 0) -> Path:
    """Stable Diffusion's x4 upscaler with as little as the host allows."""
    parts = X4_SHAPES["small"]
    unet = replace(parts.unet, mult=(1, 1, 1, 1), res_blocks=1)
    vae = replace(parts.vae, decoder=32)  # the host minds the encoder's width only
    return write(path, [*prefixed("model.diffusion_model.", unet_shapes(unet)),
                        *prefixed("first_stage_model.", vae_shapes(vae)),
                        *prefixed("cond_stage_model.model.", open_clip_shapes(parts.text))], seed=seed)


def write_real_esrgan(path: Path, seed: int = 0, width: int = 8) -> dict[str, torch.Tensor]:
    """An RRDBNet that makes pictures four times as large, with one block; returns its weights."""
    values = random_values(torch.float32, seed)
    state = {name: values(name, size) for name, size in _rrdb_shapes(width)}
    state["conv_last.bias"] += 0.5  # or half of all pixels were black
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return state


def real_esrgan(state: dict[str, torch.Tensor], picture: torch.Tensor) -> torch.Tensor:
    """What such a network with one block makes of `[B, 3, H, W]` (Wang et al. 2021, https://arxiv.org/abs/2107.10833)."""
    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    def sharp(x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x, 0.2)

    def dense(name: str, x: torch.Tensor) -> torch.Tensor:
        seen = [x]
        for number in range(1, 5):
            seen.append(sharp(conv(f"{name}.conv{number}", torch.cat(seen, 1))))
        return conv(f"{name}.conv5", torch.cat(seen, 1)) * 0.2 + x

    first = conv("conv_first", picture)
    block = first
    for number in (1, 2, 3):
        block = dense(f"body.0.rdb{number}", block)
    x = first + conv("conv_body", block * 0.2 + first)
    for number in (1, 2):
        x = sharp(conv(f"conv_up{number}", F.interpolate(x, scale_factor=2, mode="nearest")))
    return conv("conv_last", sharp(conv("conv_hr", x)))


def _rrdb_shapes(width: int) -> Shapes:
    growth = 32  # the loader takes it for granted
    yield from _conv("conv_first", width, 3)
    for part in (1, 2, 3):
        for number in range(1, 6):
            out = width if number == 5 else growth
            yield from _conv(f"body.0.rdb{part}.conv{number}", out, width + (number - 1) * growth)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        yield from _conv(name, width, width)
    yield from _conv("conv_last", 3, width)


def _controlnet_shapes() -> Shapes:
    """The UNet's way down, a middle of one block, the picture's way in, and a 1x1 convolution out of each block."""
    shape = SD1_SHAPES["small"].unet
    base, emb = shape.channels, 4 * shape.channels
    inner = [item for item in unet_shapes(shape) if item[0].startswith(("time_embed", "input_blocks"))]
    yield from inner
    for name, size in (("in_layers.0", None), ("in_layers.2", base), ("emb_layers.1", emb), ("out_layers.0", None),
                       ("out_layers.3", base)):
        weight = (base,) if size is None else (base, emb) if name.startswith("emb") else (base, base, 3, 3)
        yield f"middle_block.0.{name}.weight", weight
        yield f"middle_block.0.{name}.bias", (base,)
    widths = (3, 16, 16, 32, 32, 96, 96, 256, base)
    for number, (before, after) in enumerate(itertools.pairwise(widths)):
        yield from _conv(f"input_hint_block.{2 * number}", after, before)
    for number in range(len({name.split(".")[1] for name, _ in inner if name.startswith("input_blocks")})):
        yield from _conv(f"zero_convs.{number}.0", base, base, 1)
    yield from _conv("middle_block_out.0", base, base, 1)


def _depth_shapes() -> Shapes:
    w, out = DEPTH_WIDTH, HEAD
    yield from _conv("backbone.embeddings.patch_embeddings.projection", w, 3, 14)
    yield "backbone.embeddings.position_embeddings", (1, 37 * 37 + 1, w)
    yield "backbone.embeddings.cls_token", (1, 1, w)
    for number in range(DEPTH_LAYERS):
        layer = f"backbone.encoder.layer.{number}"
        for name in ("attention.attention.query", "attention.attention.key", "attention.attention.value",
                     "attention.output.dense"):
            yield from _linear(f"{layer}.{name}", w, w)
        yield from _linear(f"{layer}.mlp.fc1", 4 * w, w)
        yield from _linear(f"{layer}.mlp.fc2", w, 4 * w)
        for scale in (1, 2):
            yield f"{layer}.layer_scale{scale}.lambda1", (w,)
            yield from _norm(f"{layer}.norm{scale}", w)
    yield from _norm("backbone.layernorm", w)
    for stage, width in enumerate(out):
        yield from _conv(f"head.projects.{stage}", width, w, 1)
        yield f"head.scratch.layer{stage + 1}_rn.weight", (8, width, 3, 3)
    for stage, kernel in ((0, 4), (1, 2), (3, 3)):
        yield from _conv(f"head.resize_layers.{stage}", out[stage], out[stage], kernel)
    for stage in (1, 2, 3, 4):
        for unit in (1, 2) if stage < 4 else (2,):
            for number in (1, 2):
                yield from _conv(f"head.scratch.refinenet{stage}.resConfUnit{unit}.conv{number}", 8, 8)
        yield from _conv(f"head.scratch.refinenet{stage}.out_conv", 8, 8, 1)
    yield from _conv("head.scratch.output_conv1", 4, 8)
    for name in ("output_conv2", "sky_output_conv2"):
        yield from _conv(f"head.scratch.{name}.0", 32, 4)
        yield from _conv(f"head.scratch.{name}.2", 1, 32, 1)


def _conv(name: str, out: int, inner: int, kernel: int = 3) -> Shapes:
    yield f"{name}.weight", (out, inner, kernel, kernel)
    yield f"{name}.bias", (out,)


def _linear(name: str, out: int, inner: int) -> Shapes:
    yield f"{name}.weight", (out, inner)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
