"""Names and shapes of every tensor in the original (LDM) Stable Diffusion architectures, written out from those
architectures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
    text_only: tuple[int, ...] = ()
    """Levels whose first attention reads the text instead of the picture (x4 upscaler)."""


@dataclass(frozen=True)
class VaeShape:
    channels: int = 128
    mult: tuple[int, ...] = (1, 2, 4, 4)
    res_blocks: int = 2
    latent: int = 4
    decoder: int | None = None
    """The decoder's channels where they are not the encoder's."""


@dataclass(frozen=True)
class TextShape:
    width: int = 768
    layers: int = 12
    projection: int | None = None


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
            yield from _unet_block(f"input_blocks.{block}", width, base * mult, emb, shape, level)
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
            out = base * shape.mult[level]
            yield from _unet_block(f"output_blocks.{block}", width + skips.pop(), out, emb, shape, level)
            width = out
            if level and i == shape.res_blocks:
                yield from _conv(f"output_blocks.{block}.{2 if shape.depths[level] else 1}.conv", width, width)
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
    widths = [(shape.decoder or shape.channels) * m for m in shape.mult]
    width = widths[-1]
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


def open_clip_shapes(shape: TextShape) -> Shapes:
    """Every tensor of an OpenCLIP text encoder as open_clip names them."""
    w = shape.width
    yield "positional_embedding", (77, w)
    yield "text_projection", (w, shape.projection or w)
    yield "token_embedding.weight", (TOKENS, w)
    for i in range(shape.layers):
        block = f"transformer.resblocks.{i}"
        yield from _norm(f"{block}.ln_1", w)
        yield f"{block}.attn.in_proj_weight", (3 * w, w)
        yield f"{block}.attn.in_proj_bias", (3 * w,)
        yield from _linear(f"{block}.attn.out_proj", w, w)
        yield from _norm(f"{block}.ln_2", w)
        yield from _linear(f"{block}.mlp.c_fc", 4 * w, w)
        yield from _linear(f"{block}.mlp.c_proj", w, 4 * w)
    yield from _norm("ln_final", w)


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


def _transformer(name: str, width: int, shape: UNetShape, depth: int, text_only: bool = False) -> Shapes:
    yield from _norm(f"{name}.norm", width)
    yield from _linear(f"{name}.proj_in", width, width) if shape.linear else _conv(f"{name}.proj_in", width, width, 1)
    for i in range(depth):
        block = f"{name}.transformer_blocks.{i}"
        for attention, context in (("attn1", shape.context if text_only else width), ("attn2", shape.context)):
            yield from _linear(f"{block}.{attention}.to_q", width, width, bias=False)
            yield from _linear(f"{block}.{attention}.to_k", width, context, bias=False)
            yield from _linear(f"{block}.{attention}.to_v", width, context, bias=False)
            yield from _linear(f"{block}.{attention}.to_out.0", width, width)
        yield from _linear(f"{block}.ff.net.0.proj", 8 * width, width)
        yield from _linear(f"{block}.ff.net.2", width, 4 * width)
        for n in (1, 2, 3):
            yield from _norm(f"{block}.norm{n}", width)
    yield from _linear(f"{name}.proj_out", width, width) if shape.linear else _conv(f"{name}.proj_out", width, width, 1)


def _unet_block(name: str, inner: int, out: int, emb: int, shape: UNetShape, level: int) -> Shapes:
    yield from _unet_resnet(f"{name}.0", inner, out, emb)
    if shape.depths[level]:
        yield from _transformer(f"{name}.1", out, shape, shape.depths[level], level in shape.text_only)


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


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return ((prefix + name, size) for name, size in shapes)
