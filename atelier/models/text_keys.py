"""Key tables of the text encoders: OpenAI's CLIP, which checkpoints store under transformers' names, and OpenCLIP,
which they store under its own.

Source of OpenCLIP's names: open_clip's `TextTransformer`. Its attention keeps query, key and value in one matrix, and
its text projection is transposed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..errors import AtelierError
from .keymap import KeyTable, Pair, Relation, Shape

BLOCK = (Pair("attn.out_proj", "self_attn.out_proj"), Pair("ln_1", "layer_norm1"), Pair("ln_2", "layer_norm2"),
         Pair("mlp.c_fc", "mlp.fc1"), Pair("mlp.c_proj", "mlp.fc2"),
         Pair("attn.in_proj_weight", "self_attn.{}_proj.weight", Relation.STACKED),
         Pair("attn.in_proj_bias", "self_attn.{}_proj.bias", Relation.STACKED))
"""The parts of an OpenCLIP block."""

ENDS = (Pair("token_embedding", "text_model.embeddings.token_embedding"),
        Pair("positional_embedding", "text_model.embeddings.position_embedding.weight"),
        Pair("ln_final", "text_model.final_layer_norm"),
        # Some checkpoints have it as a linear layer; of two pairs for one tensor the last is the one that is written.
        Pair("text_projection.weight", "text_projection.weight"),
        Pair("text_projection", "text_projection.weight", Relation.TRANSPOSED))
"""The parts before and after OpenCLIP's blocks."""


TOKEN_TABLE = "text_model.embeddings.token_embedding.weight"
VOCABULARY = 49408
"""How many tokens CLIP's tokenizer has. Training with new words adds rows to the table behind them."""


def clip_table() -> KeyTable:
    """OpenAI's CLIP: the same names on both sides."""
    return KeyTable([Pair("text_model", "text_model"), Pair("text_projection", "text_projection")])


def open_clip_table(layers: int) -> KeyTable:
    """OpenCLIP's text encoder with this many blocks."""
    return KeyTable(_open_clip_pairs(layers))


def _open_clip_pairs(layers: int) -> Iterator[Pair]:
    yield from ENDS
    for n in range(layers):
        for part in BLOCK:
            yield Pair(f"transformer.resblocks.{n}.{part.original}", f"text_model.encoder.layers.{n}.{part.diffusers}",
                       part.relation)


def with_root(name: str) -> str:
    """A CLIP tensor's name with `text_model.` in front; models saved by transformers 5 lack it."""
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"


def layer_count(names: Collection[str]) -> int:
    """How many blocks these names have, in either layout. Counted: a single name with a large number in it is one."""
    return len({found[1] for name in names if (found := re.search(r"(?:resblocks|encoder\.layers)\.(\d+)\.", name))})


def text_config(shapes: Mapping[str, Shape], architecture: str) -> dict[str, Any]:
    """The transformers configuration of a text encoder with these shapes (diffusers names).

    Args:
        shapes: Shapes by name.
        architecture: "clip" or "open_clip"; decides the activation, which leaves no trace in the weights.

    Raises:
        AtelierError: the encoder is incomplete.
    """
    try:
        tokens, width = shapes["text_model.embeddings.token_embedding.weight"]
        positions = shapes["text_model.embeddings.position_embedding.weight"][0]
        inner = shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0]
    except KeyError as error:
        raise AtelierError(f"The text encoder lacks its tensor {error.args[0]!r}.",
                           "Choose a complete checkpoint.") from error
    projection = shapes.get("text_projection.weight", (width,))[0]
    projected = "text_projection.weight" in shapes
    return {
        "architectures": ["CLIPTextModelWithProjection" if projected else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layer_count(shapes),
        # Heads are 64 wide in every CLIP text encoder that Stable Diffusion uses.
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": positions,
        "vocab_size": tokens,
        "hidden_act": "quick_gelu" if architecture == "clip" else "gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": projection,
        "bos_token_id": 49406,
        # The true id: transformers finds the end by it, where the historical 2 means "the largest id".
        "eos_token_id": 49407,
        "pad_token_id": 49407 if architecture == "clip" else 0,
    }
