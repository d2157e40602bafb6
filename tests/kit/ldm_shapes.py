"""Names and shapes of every tensor in the original (LDM) Stable Diffusion architectures.

The architectures are built as torch modules without memory, after the published descriptions, and asked for their state
dicts. Which tensors a layer has is thus torch's own knowledge, and nothing is shared with the library's tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

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
    with torch.device("meta"):
        return _shapes(_UNet(shape))


def vae_shapes(shape: VaeShape) -> Shapes:
    """Every tensor of the original KL autoencoder."""
    with torch.device("meta"):
        return _shapes(_Autoencoder(shape))


def clip_shapes(shape: TextShape) -> Shapes:
    """Every tensor of a CLIP text encoder as transformers names them, without the leading `text_model.`."""
    with torch.device("meta"):
        return _shapes(_Clip(shape))


def open_clip_shapes(shape: TextShape) -> Shapes:
    """Every tensor of an OpenCLIP text encoder as open_clip names them."""
    with torch.device("meta"):
        return _shapes(_OpenClip(shape))


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return ((prefix + name, size) for name, size in shapes)


def _shapes(module: nn.Module) -> Shapes:
    return iter([(name, tuple(tensor.shape)) for name, tensor in module.state_dict().items()])


class _Parts(nn.Module):
    """A module that is nothing but its parts, in the order given."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def _group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width)


def _conv3(inner: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(inner, out, 3, padding=1)


# --- UNet ---------------------------------------------------------------------------------------------------------

def _res_block(inner: int, out: int, emb: int) -> nn.Module:
    block = _Parts(in_layers=nn.Sequential(_group_norm(inner), nn.SiLU(), _conv3(inner, out)),
                   emb_layers=nn.Sequential(nn.SiLU(), nn.Linear(emb, out)),
                   out_layers=nn.Sequential(_group_norm(out), nn.SiLU(), nn.Dropout(), _conv3(out, out)))
    if inner != out:
        block.add_module("skip_connection", nn.Conv2d(inner, out, 1))
    return block


def _attention(width: int, context: int) -> nn.Module:
    return _Parts(to_q=nn.Linear(width, width, bias=False), to_k=nn.Linear(context, width, bias=False),
                  to_v=nn.Linear(context, width, bias=False),
                  to_out=nn.Sequential(nn.Linear(width, width), nn.Dropout()))


def _transformer_block(width: int, context: int, text_only: bool) -> nn.Module:
    gated = _Parts(proj=nn.Linear(width, 2 * 4 * width))  # GEGLU: one half gates the other
    return _Parts(attn1=_attention(width, context if text_only else width), attn2=_attention(width, context),
                  ff=_Parts(net=nn.Sequential(gated, nn.Dropout(), nn.Linear(4 * width, width))),
                  norm1=nn.LayerNorm(width), norm2=nn.LayerNorm(width), norm3=nn.LayerNorm(width))


def _spatial_transformer(width: int, depth: int, shape: UNetShape, text_only: bool = False) -> nn.Module:
    def projection() -> nn.Module:
        return nn.Linear(width, width) if shape.linear else nn.Conv2d(width, width, 1)

    return _Parts(norm=_group_norm(width), proj_in=projection(),
                  transformer_blocks=nn.ModuleList(_transformer_block(width, shape.context, text_only)
                                                   for _ in range(depth)),
                  proj_out=projection())


class _UNet(nn.Module):
    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        base, emb, last = shape.channels, 4 * shape.channels, len(shape.mult) - 1
        self.time_embed = nn.Sequential(nn.Linear(base, emb), nn.SiLU(), nn.Linear(emb, emb))
        if shape.vector is not None:
            self.label_emb = nn.Sequential(nn.Sequential(nn.Linear(shape.vector, emb), nn.SiLU(), nn.Linear(emb, emb)))
        if shape.classes is not None:
            self.label_emb = nn.Embedding(shape.classes, emb)

        def layer(level: int, inner: int) -> list[nn.Module]:
            width, depth = base * shape.mult[level], shape.depths[level]
            parts = [_res_block(inner, width, emb)]
            return [*parts, _spatial_transformer(width, depth, shape, level in shape.text_only)] if depth else parts

        self.input_blocks = nn.ModuleList([nn.Sequential(_conv3(shape.in_channels, base))])
        saved, width = [base], base
        for level, mult in enumerate(shape.mult):
            for _ in range(shape.res_blocks):
                self.input_blocks.append(nn.Sequential(*layer(level, width)))
                width = base * mult
                saved.append(width)
            if level != last:
                self.input_blocks.append(nn.Sequential(_Parts(op=_conv3(width, width))))
                saved.append(width)
        if shape.middle_depth is not None:
            self.middle_block = nn.Sequential(_res_block(width, width, emb),
                                              _spatial_transformer(width, shape.middle_depth, shape),
                                              _res_block(width, width, emb))
        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            for i in range(shape.res_blocks + 1):
                parts = layer(level, width + saved.pop())
                width = base * shape.mult[level]
                if level and i == shape.res_blocks:
                    parts.append(_Parts(conv=_conv3(width, width)))
                self.output_blocks.append(nn.Sequential(*parts))
        self.out = nn.Sequential(_group_norm(width), nn.SiLU(), _conv3(width, 4))


# --- VAE ----------------------------------------------------------------------------------------------------------

def _vae_resnet(inner: int, out: int) -> nn.Module:
    block = _Parts(norm1=_group_norm(inner), conv1=_conv3(inner, out), norm2=_group_norm(out), conv2=_conv3(out, out))
    if inner != out:
        block.add_module("nin_shortcut", nn.Conv2d(inner, out, 1))
    return block


def _vae_middle(width: int) -> nn.Module:
    attention = _Parts(norm=_group_norm(width), **{name: nn.Conv2d(width, width, 1)
                                                   for name in ("q", "k", "v", "proj_out")})
    return _Parts(block_1=_vae_resnet(width, width), attn_1=attention, block_2=_vae_resnet(width, width))


def _vae_level(inner: int, out: int, count: int, **resampler: nn.Module) -> nn.Module:
    blocks = [_vae_resnet(inner if i == 0 else out, out) for i in range(count)]
    return _Parts(block=nn.ModuleList(blocks), **resampler)


class _Autoencoder(nn.Module):
    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        widths, last = [shape.channels * mult for mult in shape.mult], len(shape.mult) - 1
        down = nn.ModuleList()
        for level, (inner, out) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            resampler = {} if level == last else {"downsample": _Parts(conv=_conv3(out, out))}
            down.append(_vae_level(inner, out, shape.res_blocks, **resampler))
        self.encoder = _Parts(conv_in=_conv3(3, widths[0]), down=down, mid=_vae_middle(widths[-1]),
                              norm_out=_group_norm(widths[-1]), conv_out=_conv3(widths[-1], 2 * shape.latent))
        widths = [(shape.decoder or shape.channels) * mult for mult in shape.mult]
        up = _Parts()
        for level in range(last, -1, -1):
            inner, out = widths[min(level + 1, last)], widths[level]
            resampler = {"upsample": _Parts(conv=_conv3(out, out))} if level else {}
            up.add_module(str(level), _vae_level(inner, out, shape.res_blocks + 1, **resampler))
        self.decoder = _Parts(conv_in=_conv3(shape.latent, widths[-1]), mid=_vae_middle(widths[-1]), up=up,
                              norm_out=_group_norm(widths[0]), conv_out=_conv3(widths[0], 3))
        self.quant_conv = nn.Conv2d(2 * shape.latent, 2 * shape.latent, 1)
        self.post_quant_conv = nn.Conv2d(shape.latent, shape.latent, 1)


# --- text encoders ------------------------------------------------------------------------------------------------

class _Clip(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        width = shape.width
        self.embeddings = _Parts(token_embedding=nn.Embedding(TOKENS, width),
                                 position_embedding=nn.Embedding(77, width))
        self.encoder = _Parts(layers=nn.ModuleList(_Parts(
            self_attn=_Parts(**{f"{name}_proj": nn.Linear(width, width) for name in ("k", "v", "q", "out")}),
            layer_norm1=nn.LayerNorm(width),
            mlp=_Parts(fc1=nn.Linear(width, 4 * width), fc2=nn.Linear(4 * width, width)),
            layer_norm2=nn.LayerNorm(width)) for _ in range(shape.layers)))
        self.final_layer_norm = nn.LayerNorm(width)


class _OpenClip(nn.Module):
    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        width = shape.width
        self.positional_embedding = nn.Parameter(torch.empty(77, width))
        self.text_projection = nn.Parameter(torch.empty(width, shape.projection or width))
        self.token_embedding = nn.Embedding(TOKENS, width)
        self.transformer = _Parts(resblocks=nn.ModuleList(_Parts(
            ln_1=nn.LayerNorm(width), attn=nn.MultiheadAttention(width, 1), ln_2=nn.LayerNorm(width),
            mlp=_Parts(c_fc=nn.Linear(width, 4 * width), c_proj=nn.Linear(4 * width, width)))
            for _ in range(shape.layers)))
        self.ln_final = nn.LayerNorm(width)
