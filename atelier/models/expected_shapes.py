"""The name and shape of every tensor that a configuration requires, to check that a model is complete before a byte
of it is written.

Readers fill what a file lacks with random numbers and go on, so an incomplete model must not get that far. diffusers
and transformers could tell too, but importing them takes seconds and hundreds of megabytes, and conversion needs
neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import AtelierError
from .keymap import Shape

Shapes = Iterator[tuple[str, Shape]]


def check_whole(component: str, shapes: Mapping[str, Shape], config: Mapping[str, Any]) -> None:
    """Compare a component's tensors with those its configuration calls for.

    Raises:
        AtelierError: a tensor is missing, is too many, or has another shape.
    """
    expected = dict({"unet": _unet, "vae": _vae}.get(component, _text)(config))
    for name, shape in expected.items():
        if name not in shapes:
            raise AtelierError(f"The {component} lacks its tensor {name!r}.", "The file is incomplete; get it again.")
        if shapes[name] != shape:
            found = list(shapes[name])
            raise AtelierError(f"The {component}'s tensor {name!r} has the shape {found}, where the rest of the model "
                               f"calls for {list(shape)}.", "The file is damaged or of another kind.")
    for name in shapes:
        if name not in expected:
            raise AtelierError(f"The {component} has a tensor {name!r} that its architecture has no place for.",
                               "This architecture is not supported; nothing was written.")


def check_ranks(component: str, shapes: Mapping[str, Shape]) -> None:
    """Require of every tensor as many dimensions as its kind of layer has: a bias or a norm one, others two to four,
    none of them empty. What is read from shapes after this need not look again.

    Raises:
        AtelierError: a tensor has another number of them.
    """
    for name, shape in shapes.items():
        layer, _, kind = name.rpartition(".")
        plain = kind != "weight" or "norm" in layer.rpartition(".")[2]
        if not (len(shape) == 1 if plain else 2 <= len(shape) <= 4) or 0 in shape:
            raise AtelierError(f"The {component}'s tensor {name!r} has the shape {list(shape)}, which it cannot have.",
                               "The file is damaged or of another kind.")


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


def _resnet(name: str, inner: int, out: int, time: int | None) -> Shapes:
    yield from _norm(f"{name}.norm1", inner)
    yield from _conv(f"{name}.conv1", out, inner)
    if time:
        yield from _linear(f"{name}.time_emb_proj", out, time)
    yield from _norm(f"{name}.norm2", out)
    yield from _conv(f"{name}.conv2", out, out)
    if inner != out:
        yield from _conv(f"{name}.conv_shortcut", out, inner, 1)


def _transformer(name: str, width: int, depth: int, text_only: bool, config: Mapping[str, Any]) -> Shapes:
    context = config["cross_attention_dim"]
    yield from _norm(f"{name}.norm", width)
    for end in ("proj_in", "proj_out"):
        yield from (_linear(f"{name}.{end}", width, width) if config["use_linear_projection"] else
                    _conv(f"{name}.{end}", width, width, 1))
    for n in range(depth):
        block = f"{name}.transformer_blocks.{n}"
        for attention, source in (("attn1", context if text_only else width), ("attn2", context)):
            yield from _linear(f"{block}.{attention}.to_q", width, width, bias=False)
            yield from _linear(f"{block}.{attention}.to_k", width, source, bias=False)
            yield from _linear(f"{block}.{attention}.to_v", width, source, bias=False)
            yield from _linear(f"{block}.{attention}.to_out.0", width, width)
        yield from _linear(f"{block}.ff.net.0.proj", 8 * width, width)
        yield from _linear(f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            yield from _norm(f"{block}.{norm}", width)


def _unet(config: Mapping[str, Any]) -> Shapes:
    widths: list[int] = config["block_out_channels"]
    levels, base, time = len(widths), widths[0], 4 * widths[0]
    resnets = _each(config["layers_per_block"], levels)
    depths = _each(config["transformer_layers_per_block"], levels)
    upward = config.get("reverse_transformer_layers_per_block") or depths[::-1]
    text_only = _each(config.get("only_cross_attention", False), levels)
    yield from _conv("conv_in", base, config["in_channels"])
    yield from _linear("time_embedding.linear_1", time, base)
    yield from _linear("time_embedding.linear_2", time, time)
    if "projection_class_embeddings_input_dim" in config:
        yield from _linear("add_embedding.linear_1", time, config["projection_class_embeddings_input_dim"])
        yield from _linear("add_embedding.linear_2", time, time)
    if "num_class_embeds" in config:
        yield "class_embedding.weight", (config["num_class_embeds"], time)
    skips, width = [base], base
    for level, out in enumerate(widths):
        for i in range(resnets[level]):
            yield from _resnet(f"down_blocks.{level}.resnets.{i}", width, out, time)
            if config["down_block_types"][level].startswith("CrossAttn"):
                depth = _each(depths[level], resnets[level])[i]
                yield from _transformer(f"down_blocks.{level}.attentions.{i}", out, depth, text_only[level], config)
            width = out
            skips.append(width)
        if level < levels - 1:
            yield from _conv(f"down_blocks.{level}.downsamplers.0.conv", width, width)
            skips.append(width)
    if config["mid_block_type"]:
        yield from _resnet("mid_block.resnets.0", width, width, time)
    if config["mid_block_type"] == "UNetMidBlock2DCrossAttn":
        yield from _transformer("mid_block.attentions.0", width, _each(depths[-1], 1)[0],
                                config.get("mid_block_only_cross_attention", False), config)
        yield from _resnet("mid_block.resnets.1", width, width, time)
    for block, (level, out) in enumerate(reversed(list(enumerate(widths)))):
        for i in range(resnets[level] + 1):
            yield from _resnet(f"up_blocks.{block}.resnets.{i}", width + skips.pop(), out, time)
            if config["up_block_types"][block].startswith("CrossAttn"):
                depth = _each(upward[block], resnets[level] + 1)[i]
                yield from _transformer(f"up_blocks.{block}.attentions.{i}", out, depth, text_only[level], config)
            width = out
        if level:
            yield from _conv(f"up_blocks.{block}.upsamplers.0.conv", width, width)
    yield from _norm("conv_norm_out", width)
    yield from _conv("conv_out", config["out_channels"], width)


def _vae(config: Mapping[str, Any]) -> Shapes:
    widths, latent, layers = config["block_out_channels"], config["latent_channels"], config["layers_per_block"]
    top = widths[-1]
    yield from _conv("encoder.conv_in", widths[0], config["in_channels"])
    width = widths[0]
    for level, out in enumerate(widths):
        for i in range(layers):
            yield from _resnet(f"encoder.down_blocks.{level}.resnets.{i}", width, out, None)
            width = out
        if level < len(widths) - 1:
            yield from _conv(f"encoder.down_blocks.{level}.downsamplers.0.conv", width, width)
    for half in ("encoder", "decoder"):
        for i in range(2):
            yield from _resnet(f"{half}.mid_block.resnets.{i}", top, top, None)
        if config["mid_block_add_attention"]:
            yield from _norm(f"{half}.mid_block.attentions.0.group_norm", top)
            for part in ("to_q", "to_k", "to_v", "to_out.0"):
                yield from _linear(f"{half}.mid_block.attentions.0.{part}", top, top)
    yield from _norm("encoder.conv_norm_out", top)
    yield from _conv("encoder.conv_out", 2 * latent, top)
    yield from _conv("decoder.conv_in", top, latent)
    for block, (level, out) in enumerate(reversed(list(enumerate(widths)))):
        for i in range(layers + 1):
            yield from _resnet(f"decoder.up_blocks.{block}.resnets.{i}", width, out, None)
            width = out
        if level:
            yield from _conv(f"decoder.up_blocks.{block}.upsamplers.0.conv", width, width)
    yield from _norm("decoder.conv_norm_out", width)
    yield from _conv("decoder.conv_out", config["out_channels"], width)
    if config["use_quant_conv"]:
        yield from _conv("quant_conv", 2 * latent, 2 * latent, 1)
    if config["use_post_quant_conv"]:
        yield from _conv("post_quant_conv", latent, latent, 1)


def _text(config: Mapping[str, Any]) -> Shapes:
    width, inner = config["hidden_size"], config["intermediate_size"]
    yield "text_model.embeddings.token_embedding.weight", (config["vocab_size"], width)
    yield "text_model.embeddings.position_embedding.weight", (config["max_position_embeddings"], width)
    for n in range(config["num_hidden_layers"]):
        layer = f"text_model.encoder.layers.{n}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{part}", width, width)
        yield from _linear(f"{layer}.mlp.fc1", inner, width)
        yield from _linear(f"{layer}.mlp.fc2", width, inner)
        yield from _norm(f"{layer}.layer_norm1", width)
        yield from _norm(f"{layer}.layer_norm2", width)
    yield from _norm("text_model.final_layer_norm", width)
    if config["architectures"] == ["CLIPTextModelWithProjection"]:
        yield "text_projection.weight", (config["projection_dim"], width)


def _each(value: Any, count: int) -> list[Any]:
    """diffusers' shorthand: one value may stand for all."""
    return list(value) if isinstance(value, (list, tuple)) else [value] * count
