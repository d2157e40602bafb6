"""The UNet's key table between the two layouts, and its diffusers configuration from the shapes alone.

The original numbers all input and output blocks through (openaimodel.UNetModel); diffusers nests them by level. What
connects the two is how many resnets each level has and where attention sits, both read from the names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import AtelierError
from .keymap import KeyTable, Pair, Shape

RESNET = (Pair("in_layers.0", "norm1"), Pair("in_layers.2", "conv1"), Pair("emb_layers.1", "time_emb_proj"),
          Pair("out_layers.0", "norm2"), Pair("out_layers.3", "conv2"), Pair("skip_connection", "conv_shortcut"))
"""The parts of a residual block. Transformer blocks have the same names in both layouts."""

ENDS = (Pair("time_embed.0", "time_embedding.linear_1"), Pair("time_embed.2", "time_embedding.linear_2"),
        Pair("label_emb.0.0", "add_embedding.linear_1"), Pair("label_emb.0.2", "add_embedding.linear_2"),
        Pair("label_emb", "class_embedding"), Pair("input_blocks.0.0", "conv_in"),
        Pair("out.0", "conv_norm_out"), Pair("out.2", "conv_out"))
"""The parts before and after the blocks."""

TIME_IDS_WIDTH = 256
"""Width of the sinusoidal embedding of each size and crop number in SDXL."""


@dataclass(frozen=True)
class UNetLayout:
    """How the blocks are grouped."""

    resnets: tuple[int, ...]
    """Residual blocks of each level on the way down; on the way up there is one more."""
    up_attention: tuple[bool, ...]
    """Whether each output block, in the original's numbering, has a transformer."""

    @classmethod
    def from_original(cls, names: Collection[str]) -> UNetLayout:
        """Read it from names like `input_blocks.4.0.in_layers.0.weight`."""
        resnets, block = [0], 1
        while True:
            if f"input_blocks.{block}.0.op.weight" in names:
                resnets.append(0)
            elif f"input_blocks.{block}.0.in_layers.0.weight" in names:
                resnets[-1] += 1
            else:
                break
            block += 1
        blocks = range(sum(resnets) + len(resnets))
        return cls(tuple(resnets), tuple(f"output_blocks.{n}.1.norm.weight" in names for n in blocks))

    @classmethod
    def from_diffusers(cls, names: Collection[str]) -> UNetLayout:
        """Read it from names like `down_blocks.1.resnets.0.norm1.weight`."""
        resnets: list[int] = []
        while f"down_blocks.{len(resnets)}.resnets.0.norm1.weight" in names:
            level, count = len(resnets), 1
            while f"down_blocks.{level}.resnets.{count}.norm1.weight" in names:
                count += 1
            resnets.append(count)
        attention = [f"up_blocks.{level}.attentions.{i}.norm.weight" in names
                     for level, count in enumerate(reversed(resnets)) for i in range(count + 1)]
        return cls(tuple(resnets), tuple(attention))

    def pairs(self) -> Iterator[Pair]:
        """The table of a UNet with this layout."""
        yield from ENDS
        block = 1
        for level, count in enumerate(self.resnets):
            for i in range(count):
                yield from _resnet(f"input_blocks.{block}.0", f"down_blocks.{level}.resnets.{i}")
                yield Pair(f"input_blocks.{block}.1", f"down_blocks.{level}.attentions.{i}")
                block += 1
            if level < len(self.resnets) - 1:
                yield Pair(f"input_blocks.{block}.0.op", f"down_blocks.{level}.downsamplers.0.conv")
                block += 1
        yield from _resnet("middle_block.0", "mid_block.resnets.0")
        yield Pair("middle_block.1", "mid_block.attentions.0")
        yield from _resnet("middle_block.2", "mid_block.resnets.1")
        block = 0
        for level, count in enumerate(reversed(self.resnets)):
            for i in range(count + 1):
                attention = self.up_attention[block]
                yield from _resnet(f"output_blocks.{block}.0", f"up_blocks.{level}.resnets.{i}")
                if attention:
                    yield Pair(f"output_blocks.{block}.1", f"up_blocks.{level}.attentions.{i}")
                if i == count and level < len(self.resnets) - 1:
                    yield Pair(f"output_blocks.{block}.{2 if attention else 1}.conv",
                               f"up_blocks.{level}.upsamplers.0.conv")
                block += 1


def unet_table(layout: UNetLayout) -> KeyTable:
    """The table of a UNet."""
    return KeyTable(layout.pairs())


def _resnet(original: str, diffusers: str) -> Iterator[Pair]:
    return (Pair(f"{original}.{part.original}", f"{diffusers}.{part.diffusers}") for part in RESNET)


def unet_config(shapes: Mapping[str, Shape], sample_size: int, upcast: bool) -> dict[str, Any]:
    """The configuration that makes diffusers build exactly these tensors.

    Args:
        shapes: Shapes by diffusers name.
        sample_size: Side of the latent picture the model was trained at; only a default for pipelines.
        upcast: Whether attention is computed in float32 whatever the weights' type.

    Raises:
        AtelierError: diffusers cannot build a UNet of these shapes.
    """
    layout = UNetLayout.from_diffusers(shapes)
    levels = len(layout.resnets)
    if not levels or "conv_in.weight" not in shapes or "conv_out.weight" not in shapes:
        raise AtelierError("This is not a Stable Diffusion UNet: it has no residual blocks or no ends.",
                           "Choose a Stable Diffusion 1, 2 or XL model.")
    widths = [shapes[f"down_blocks.{level}.resnets.0.conv1.weight"][0] for level in range(levels)]
    down = [_depths(shapes, f"down_blocks.{level}", count) for level, count in enumerate(layout.resnets)]
    up = [_depths(shapes, f"up_blocks.{level}", count + 1) for level, count in enumerate(reversed(layout.resnets))]
    middle = _depth(shapes, "mid_block.attentions.0")
    linear = any(name.endswith("proj_in.weight") and len(shape) == 2 for name, shape in shapes.items())
    context = next((shape[1] for name, shape in shapes.items() if name.endswith("attn2.to_k.weight")), None)
    if context is None:
        raise AtelierError("This UNet takes no text: it has no cross-attention.", "Choose a text-to-image model.")
    upscaler = "class_embedding.weight" in shapes
    config: dict[str, Any] = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": sample_size,
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": _plain(list(layout.resnets)),
        "down_block_types": ["CrossAttnDownBlock2D" if any(d) else "DownBlock2D" for d in down],
        "up_block_types": ["CrossAttnUpBlock2D" if any(d) else "UpBlock2D" for d in up],
        "mid_block_type": _middle_type(shapes, middle),
        "cross_attention_dim": context,
        # diffusers calls the number of heads their width. SD1 and the upscaler have 8, all others heads 64 wide.
        "attention_head_dim": [max(1, width // 64) for width in widths] if linear and not upscaler else 8,
        "use_linear_projection": linear,
        "upcast_attention": upcast,
        **_transformer_depths(down, middle, up),
    }
    only_cross = [_only_cross(shapes, f"down_blocks.{level}", context, width) for level, width in enumerate(widths)]
    if any(only_cross):
        config["only_cross_attention"] = only_cross
        config["mid_block_only_cross_attention"] = _only_cross(shapes, "mid_block", context, widths[-1])
    if upscaler:
        config["num_class_embeds"] = shapes["class_embedding.weight"][0]
    if "add_embedding.linear_1.weight" in shapes:
        config |= {"addition_embed_type": "text_time", "addition_time_embed_dim": TIME_IDS_WIDTH,
                   "projection_class_embeddings_input_dim": shapes["add_embedding.linear_1.weight"][1]}
    return config


def _depth(shapes: Mapping[str, Shape], attention: str) -> int:
    """Number of transformer blocks of an attention module."""
    depth = 0
    while f"{attention}.transformer_blocks.{depth}.norm1.weight" in shapes:
        depth += 1
    return depth


def _depths(shapes: Mapping[str, Shape], block: str, resnets: int) -> list[int]:
    depths = [_depth(shapes, f"{block}.attentions.{i}") for i in range(resnets)]
    if any(depths) and not all(depths):
        raise AtelierError(f"In this UNet only some layers of {block} have attention, which diffusers cannot build.",
                           "This architecture is not supported.")
    return depths


def _middle_type(shapes: Mapping[str, Shape], depth: int) -> str | None:
    if depth:
        return "UNetMidBlock2DCrossAttn"
    return "UNetMidBlock2D" if "mid_block.resnets.0.norm1.weight" in shapes else None


def _transformer_depths(down: list[list[int]], middle: int, up: list[list[int]]) -> dict[str, Any]:
    """diffusers takes the middle block's depth from the last level, so a last level without attention carries it."""
    if not any(down[-1]):
        down = [*down[:-1], [middle or 1] * len(down[-1])]
    elif middle and middle != down[-1][0]:
        raise AtelierError(f"This UNet's middle block is {middle} transformers deep and its last level {down[-1][0]}, "
                           "which diffusers cannot build.", "This architecture is not supported.")
    per_level = [_plain(depths) or 1 for depths in down]
    upward = [_plain(depths) for depths in up]
    mirrored = all(not have or have == want for have, want in zip(upward, reversed(per_level), strict=True))
    plain = all(isinstance(depth, int) for depth in per_level)
    config: dict[str, Any] = {"transformer_layers_per_block": _plain(per_level) if plain else per_level}
    if not (mirrored and plain):
        config["reverse_transformer_layers_per_block"] = [depth or 1 for depth in upward]
    return config


def _only_cross(shapes: Mapping[str, Shape], block: str, context: int, width: int) -> bool:
    """Whether the first attention of each transformer looks at the text, too, and not at the picture (x4 upscaler)."""
    name = f"{block}.attentions.0.transformer_blocks.0.attn1.to_k.weight"
    return name in shapes and context != width and shapes[name][1] == context


def _plain(values: list[Any]) -> Any:
    """One value where all are equal, else the list."""
    return values[0] if all(value == values[0] for value in values) else values
