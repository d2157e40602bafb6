"""Random-weight Stable Diffusion checkpoints in the original (LDM) layout, made on the fly.

The tensor names and shapes are written out here from the original architectures and owe nothing to `atelier.convert`,
so that the converters are tested against something independent. Weights are scaled by their fan-in, so that pictures
vary and nothing saturates.

    write_sd1(tmp_path / "model.safetensors")                 # the smallest file that the host detects and samples
    (463 MB) write_sd1(tmp_path / "model.safetensors", shape="tiny")   # a few MB, for tests that do not need the host
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import torch

Shapes = Iterator[tuple[str, tuple[int, ...]]]

TOKENS = 49408
"""Size of the CLIP vocabulary; a text encoder of any width needs all of it."""


@dataclass(frozen=True)
class UNetShape:
    """The original UNet's hyperparameters. `depths` holds the transformer depth of each level, 0 for none."""

    channels: int = 320
    mult: tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: int = 2
    depths: tuple[int, ...] = (1, 1, 1, 0)
    middle_depth: int | None = 1
    """None leaves the middle block out."""
    context: int = 768
    in_channels: int = 4
    linear: bool = False
    """Transformers enter and leave through a linear layer (SD2, SDXL) and not through a 1x1 convolution (SD1)."""
    vector: int | None = None
    """Width of the extra conditioning vector (SDXL)."""
    classes: int | None = None
    """Number of noise levels to embed (x4 upscaler)."""


@dataclass(frozen=True)
class VaeShape:
    channels: int = 128
    mult: tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: int = 2
    latent: int = 4


@dataclass(frozen=True)
class TextShape:
    width: int = 768
    layers: int = 12
    projection: int | None = None


@dataclass(frozen=True)
class Shape:
    unet: UNetShape
    vae: VaeShape
    text: TextShape


FULL_SD1 = Shape(UNetShape(), VaeShape(), TextShape())
_ONE_LEVEL = UNetShape(mult=(1,), res_blocks=1, depths=(1,), middle_depth=None)
SD1_SHAPES: dict[str, Shape] = {
    # Not for the host, which insists on width 320, a full text encoder and a full-width VAE encoder.
    "tiny": Shape(UNetShape(channels=32, mult=(1, 2), res_blocks=1, depths=(1, 0), context=32),
                  VaeShape(channels=32, mult=(1, 1, 1, 1), res_blocks=1), TextShape(width=32, layers=2)),
    "small": replace(FULL_SD1, unet=_ONE_LEVEL),
    "two_level": replace(FULL_SD1, unet=UNetShape(mult=(1, 1), res_blocks=1, depths=(1, 1))),
    "full": FULL_SD1,
}


def write_sd1(path: Path, shape: str = "small", dtype: str = "float16", seed: int = 0, *, in_channels: int = 4,
              ema: bool = False) -> Path:
    """Write a Stable Diffusion 1.x checkpoint; `.safetensors`, or `.ckpt` by the path's ending.

    Args:
        shape: A key of `SD1_SHAPES`. The host detects all but "tiny".
        dtype: "float16", "bfloat16" or "float32".
        in_channels: 9 makes an inpainting model.
        ema: Also write a second, different UNet under EMA keys, and one optimiser-like leftover.
    """
    parts = SD1_SHAPES[shape]
    unet = replace(parts.unet, in_channels=in_channels)
    tensors = [*_prefixed("model.diffusion_model.", unet_shapes(unet)),
               *_prefixed("first_stage_model.", vae_shapes(parts.vae)),
               *_prefixed("cond_stage_model.transformer.text_model.", clip_shapes(parts.text))]
    if ema:
        tensors += [("model_ema." + name.removeprefix("model.").replace(".", ""), size) for name, size in tensors
                    if name.startswith("model.")]
    extra = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None]}
    if ema:
        extra["model_ema.num_updates"] = torch.tensor(7, dtype=torch.int32)
        extra["alphas_cumprod"] = torch.linspace(0.99, 0.01, 1000)
    return write(path, tensors, dtype=dtype, seed=seed, extra=extra)


# --- names and shapes -----------------------------------------------------------------------------------------------

def unet_shapes(shape: UNetShape) -> Shapes:
    """Every tensor of the original UNet (openaimodel.UNetModel), in its own order."""
    base, emb = shape.channels, 4 * shape.channels
    yield from _linear("time_embed.0", emb, base)
    yield from _linear("time_embed.2", emb, emb)
    if shape.vector is not None:
        yield from _linear("label_emb.0.0", emb, shape.vector)
        yield from _linear("label_emb.0.2", emb, emb)
    if shape.classes is not None:
        yield "label_emb.weight", (shape.classes, emb)
    yield from _conv("input_blocks.0.0", base, shape.in_channels)
    skips, width, block = [base], base, 1
    for level, mult in enumerate(shape.mult):
        for _ in range(shape.res_blocks):
            yield from _unet_block(f"input_blocks.{block}", width, base * mult, emb, shape, shape.depths[level])
            width = base * mult
            skips.append(width)
            block += 1
        if level < len(shape.mult) - 1:
            yield from _conv(f"input_blocks.{block}.0.op", width, width)
            skips.append(width)
            block += 1
    if shape.middle_depth is not None:
        yield from _unet_resnet("middle_block.0", width, width, emb)
        yield from _transformer("middle_block.1", width, shape, shape.middle_depth)
        yield from _unet_resnet("middle_block.2", width, width, emb)
    block = 0
    for level in reversed(range(len(shape.mult))):
        for i in range(shape.res_blocks + 1):
            out, depth = base * shape.mult[level], shape.depths[level]
            yield from _unet_block(f"output_blocks.{block}", width + skips.pop(), out, emb, shape, depth)
            width = out
            if level and i == shape.res_blocks:
                yield from _conv(f"output_blocks.{block}.{2 if depth else 1}.conv", width, width)
            block += 1
    yield from _norm("out.0", width)
    yield from _conv("out.2", 4, width)


def vae_shapes(shape: VaeShape) -> Shapes:
    """Every tensor of the original KL autoencoder."""
    z, widths = shape.latent, [shape.channels * m for m in shape.mult]
    yield from _conv("encoder.conv_in", widths[0], 3)
    width = widths[0]
    for level, out in enumerate(widths):
        for i in range(shape.res_blocks):
            yield from _vae_resnet(f"encoder.down.{level}.block.{i}", width, out)
            width = out
        if level < len(widths) - 1:
            yield from _conv(f"encoder.down.{level}.downsample.conv", width, width)
    yield from _vae_middle("encoder.mid", width)
    yield from _norm("encoder.norm_out", width)
    yield from _conv("encoder.conv_out", 2 * z, width)
    yield from _conv("decoder.conv_in", width, z)
    yield from _vae_middle("decoder.mid", width)
    for level in reversed(range(len(widths))):
        for i in range(shape.res_blocks + 1):
            yield from _vae_resnet(f"decoder.up.{level}.block.{i}", width, widths[level])
            width = widths[level]
        if level:
            yield from _conv(f"decoder.up.{level}.upsample.conv", width, width)
    yield from _norm("decoder.norm_out", width)
    yield from _conv("decoder.conv_out", 3, width)
    yield from _conv("quant_conv", 2 * z, 2 * z, 1)
    yield from _conv("post_quant_conv", z, z, 1)


def clip_shapes(shape: TextShape) -> Shapes:
    """Every tensor of a CLIP text encoder as transformers names them, without the leading `text_model.`."""
    w = shape.width
    yield "embeddings.token_embedding.weight", (TOKENS, w)
    yield "embeddings.position_embedding.weight", (77, w)
    for i in range(shape.layers):
        layer = f"encoder.layers.{i}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{part}", w, w)
        yield from _norm(f"{layer}.layer_norm1", w)
        yield from _linear(f"{layer}.mlp.fc1", 4 * w, w)
        yield from _linear(f"{layer}.mlp.fc2", w, 4 * w)
        yield from _norm(f"{layer}.layer_norm2", w)
    yield from _norm("final_layer_norm", w)


def _linear(name: str, out: int, inner: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (out, inner)
    if bias:
        yield f"{name}.bias", (out,)


def _conv(name: str, out: int, inner: int, kernel: int = 3) -> Shapes:
    yield f"{name}.weight", (out, inner, kernel, kernel)
    yield f"{name}.bias", (out,)


def _norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _unet_resnet(name: str, inner: int, out: int, emb: int) -> Shapes:
    yield from _norm(f"{name}.in_layers.0", inner)
    yield from _conv(f"{name}.in_layers.2", out, inner)
    yield from _linear(f"{name}.emb_layers.1", out, emb)
    yield from _norm(f"{name}.out_layers.0", out)
    yield from _conv(f"{name}.out_layers.3", out, out)
    if inner != out:
        yield from _conv(f"{name}.skip_connection", out, inner, 1)


def _transformer(name: str, width: int, shape: UNetShape, depth: int) -> Shapes:
    yield from _norm(f"{name}.norm", width)
    yield from _linear(f"{name}.proj_in", width, width) if shape.linear else _conv(f"{name}.proj_in", width, width, 1)
    for i in range(depth):
        block = f"{name}.transformer_blocks.{i}"
        for attention, context in (("attn1", width), ("attn2", shape.context)):
            yield from _linear(f"{block}.{attention}.to_q", width, width, bias=False)
            yield from _linear(f"{block}.{attention}.to_k", width, context, bias=False)
            yield from _linear(f"{block}.{attention}.to_v", width, context, bias=False)
            yield from _linear(f"{block}.{attention}.to_out.0", width, width)
        yield from _linear(f"{block}.ff.net.0.proj", 8 * width, width)
        yield from _linear(f"{block}.ff.net.2", width, 4 * width)
        for n in (1, 2, 3):
            yield from _norm(f"{block}.norm{n}", width)
    yield from _linear(f"{name}.proj_out", width, width) if shape.linear else _conv(f"{name}.proj_out", width, width, 1)


def _unet_block(name: str, inner: int, out: int, emb: int, shape: UNetShape, depth: int) -> Shapes:
    yield from _unet_resnet(f"{name}.0", inner, out, emb)
    if depth:
        yield from _transformer(f"{name}.1", out, shape, depth)


def _vae_resnet(name: str, inner: int, out: int) -> Shapes:
    yield from _norm(f"{name}.norm1", inner)
    yield from _conv(f"{name}.conv1", out, inner)
    yield from _norm(f"{name}.norm2", out)
    yield from _conv(f"{name}.conv2", out, out)
    if inner != out:
        yield from _conv(f"{name}.nin_shortcut", out, inner, 1)


def _vae_middle(name: str, width: int) -> Shapes:
    yield from _vae_resnet(f"{name}.block_1", width, width)
    yield from _norm(f"{name}.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        yield from _conv(f"{name}.attn_1.{part}", width, width, 1)
    yield from _vae_resnet(f"{name}.block_2", width, width)


def _prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return ((prefix + name, size) for name, size in shapes)


# --- values and files -----------------------------------------------------------------------------------------------

_SAFETENSORS_NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.int64: "I64",
                      torch.int32: "I32"}


def random_values(dtype: torch.dtype, seed: int) -> Callable[[str, tuple[int, ...]], torch.Tensor]:
    """A function that gives each named tensor its values, much faster than drawing each number anew.

    Slices of one pool of normal numbers are used, each from another place; a pool of prime length keeps rows of a
    matrix apart.
    """
    pool = torch.randn(1_299_709, generator=torch.Generator().manual_seed(seed))
    pool = torch.cat([pool, pool])
    half = len(pool) // 2
    place = 0

    def values(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        nonlocal place
        count = math.prod(shape)
        out = torch.empty(count, dtype=dtype)
        scale, shift = _scale(name, shape), 1.0 if _is_norm(name, shape) else 0.0
        scaled = (pool * scale + shift).to(dtype) if count > half else None
        for start in range(0, count, half):
            size = min(half, count - start)
            source = scaled[place:place + size] if scaled is not None else (pool[place:place + size] * scale + shift)
            out[start:start + size] = source
            place = (place + size + 7919) % half
        return out.reshape(shape)

    return values


def write(path: Path, tensors: Iterable[tuple[str, tuple[int, ...]]], *, dtype: str = "float16", seed: int = 0,
          extra: Mapping[str, torch.Tensor] | None = None, metadata: Mapping[str, str] | None = None) -> Path:
    """Write random tensors of these names and shapes, and `extra` ones as they are, streaming."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = getattr(torch, dtype)
    values = random_values(kind, seed)
    extra = extra or {}
    if path.suffix in (".ckpt", ".bin"):
        state = {name: values(name, size) for name, size in tensors} | dict(extra)
        torch.save({"state_dict": state, "global_step": 1000}, path)
        return path
    tensors = list(tensors)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    exact = [(name, tuple(tensor.shape), tensor.dtype) for name, tensor in extra.items()]
    for name, size, of in [*((name, size, kind) for name, size in tensors), *exact]:
        begin, end = end, end + math.prod(size) * of.itemsize
        header[name] = {"dtype": _SAFETENSORS_NAMES[of], "shape": list(size), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, size in tensors:
            _put(file, values(name, size))
        for tensor in extra.values():
            _put(file, tensor)
    return path


def _put(file: IO[bytes], tensor: torch.Tensor) -> None:
    file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _is_norm(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 and name.endswith("weight")


def _scale(name: str, shape: tuple[int, ...]) -> float:
    if len(shape) < 2:
        return 0.1
    if "embedding" in name:
        return 0.5
    return 1 / math.sqrt(math.prod(shape[1:]))
