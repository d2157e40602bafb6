"""The KL autoencoder's key table between the two layouts, and its diffusers configuration from the shapes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..errors import AtelierError
from .keymap import KeyTable, Pair, Relation, Shape

ATTENTION = (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0"))
"""The projections of the middle block's attention: 1x1 convolutions in the original, linear layers in diffusers."""

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""How diffusers named them until 0.17; many folders still do."""


def vae_table(names: Collection[str]) -> KeyTable:
    """The table of a VAE, from the names of either layout. Only the number of levels matters: the way up is numbered
    in reverse."""
    levels = 0
    while any(f"{stem}.weight" in names for stem in (f"encoder.down.{levels}.block.0.conv1",
                                                     f"encoder.down_blocks.{levels}.resnets.0.conv1")):
        levels += 1
    return KeyTable(_pairs(levels))


def _pairs(levels: int) -> Iterator[Pair]:
    for half in ("encoder", "decoder"):
        yield Pair(f"{half}.conv_in", f"{half}.conv_in")
        yield Pair(f"{half}.conv_out", f"{half}.conv_out")
        yield Pair(f"{half}.norm_out", f"{half}.conv_norm_out")
        yield from _resnet(f"{half}.mid.block_1", f"{half}.mid_block.resnets.0")
        yield from _resnet(f"{half}.mid.block_2", f"{half}.mid_block.resnets.1")
        original, diffusers = f"{half}.mid.attn_1", f"{half}.mid_block.attentions.0"
        yield Pair(f"{original}.norm", f"{diffusers}.group_norm")
        for ours, theirs in ATTENTION:
            yield Pair(f"{original}.{ours}.weight", f"{diffusers}.{theirs}.weight", Relation.POINTWISE)
            yield Pair(f"{original}.{ours}.bias", f"{diffusers}.{theirs}.bias")
    # More blocks than any level has; unused pairs do no harm.
    for level in range(levels):
        reverse = levels - 1 - level
        for i in range(8):
            yield from _resnet(f"encoder.down.{level}.block.{i}", f"encoder.down_blocks.{level}.resnets.{i}")
            yield from _resnet(f"decoder.up.{level}.block.{i}", f"decoder.up_blocks.{reverse}.resnets.{i}")
        yield Pair(f"encoder.down.{level}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv")
        yield Pair(f"decoder.up.{level}.upsample.conv", f"decoder.up_blocks.{reverse}.upsamplers.0.conv")
    yield Pair("quant_conv", "quant_conv")
    yield Pair("post_quant_conv", "post_quant_conv")


def _resnet(original: str, diffusers: str) -> Iterator[Pair]:
    for part in ("norm1", "conv1", "norm2", "conv2"):
        yield Pair(f"{original}.{part}", f"{diffusers}.{part}")
    yield Pair(f"{original}.nin_shortcut", f"{diffusers}.conv_shortcut")


def current_name(name: str) -> str:
    """A diffusers name with the attention's old names replaced by today's."""
    head, dot, tail = name.rpartition(".")
    parent, _, last = head.rpartition(".")
    return f"{parent}.{OLD_ATTENTION[last]}.{tail}" if dot and last in OLD_ATTENTION else name


def original_attention(name: str) -> str:
    """A checkpoint's name with diffusers' names of the attention's parts (`attn_1.to_q`) replaced by the original's."""
    head, found, tail = name.partition(".mid.attn_1.")
    for ours, theirs in ATTENTION:
        if found and tail.startswith(f"{theirs}."):
            return f"{head}{found}{ours}{tail.removeprefix(theirs)}"
    return name


def vae_config(shapes: Mapping[str, Shape], scaling_factor: float, sample_size: int,
               force_upcast: bool) -> dict[str, Any]:
    """The configuration that makes diffusers build exactly these tensors.

    Raises:
        AtelierError: diffusers' AutoencoderKL cannot have these shapes.
    """
    widths: list[int] = []
    while f"encoder.down_blocks.{len(widths)}.resnets.0.conv1.weight" in shapes:
        widths.append(shapes[f"encoder.down_blocks.{len(widths)}.resnets.0.conv1.weight"][0])
    if not widths or "decoder.conv_in.weight" not in shapes:
        raise AtelierError("The VAE is not a KL autoencoder with an encoder and a decoder.",
                           "Choose a checkpoint with a full VAE, or add one with the host's nodes and save it.")
    if shapes["decoder.conv_in.weight"][0] != widths[-1]:
        decoder = shapes["decoder.conv_in.weight"][0]
        raise AtelierError(f"The VAE's decoder is {decoder} channels wide, its encoder {widths[-1]}, which "
                           "diffusers cannot build.", "Choose a checkpoint with a standard VAE.")
    layers = 1
    while f"encoder.down_blocks.0.resnets.{layers}.conv1.weight" in shapes:
        layers += 1
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "sample_size": sample_size,
        "scaling_factor": scaling_factor,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "mid_block_add_attention": "encoder.mid_block.attentions.0.group_norm.weight" in shapes,
        "force_upcast": force_upcast,
    }
