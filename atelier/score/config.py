"""Infer a CLIP model's configuration from its tensor shapes.

A single weights file carries no configuration, and some published folders carry a wrong one (LongCLIP's says 77
positions where the weights have 248). Shapes therefore take precedence; config.json only adds
values that no shape determines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import AtelierError

Shapes = Mapping[str, tuple[int, ...]]

_TEXT = "text_model."
_VISION = "vision_model."
_TOKENS, _TOKEN_POSITIONS, _PATCHES, _PATCH_POSITIONS = (
    _TEXT + "embeddings.token_embedding.weight", _TEXT + "embeddings.position_embedding.weight",
    _VISION + "embeddings.patch_embedding.weight", _VISION + "embeddings.position_embedding.weight")
_DIMENSIONS = {_TOKENS: 2, _TOKEN_POSITIONS: 2, _PATCHES: 4, _PATCH_POSITIONS: 2}
_UNSEEN = ("num_attention_heads", "hidden_act", "layer_norm_eps")
_UNSEEN_TEXT = (*_UNSEEN, "eos_token_id", "bos_token_id", "pad_token_id")
STATED = frozenset(_UNSEEN_TEXT)
"""Fields of a config.json that are used: those that no shape determines."""
_OPENAI_WIDEST = 1024
"""Vision width of ViT-L/14, the widest CLIP by OpenAI; wider ones (H, g, bigG) are LAION's."""


def config_of(shapes: Shapes, known: Mapping[str, Any] | None, source: str) -> dict[str, Any]:
    """Keyword arguments for `transformers.CLIPConfig`.

    Args:
        shapes: Every tensor's shape, named as in transformers' `CLIPModel`.
        known: The model's own `CLIPConfig` as a dict; None if it has none. Then heads are 64 wide, but
            16 in number from vision width 1024 up, and the activation is quick_gelu up to OpenAI's widest model,
            gelu beyond: correct for OpenAI's and LAION's released models, except LAION's B/32, B/16 and L/14 (gelu),
            which therefore need their config.json.
        source: Name of the model in error messages.

    Raises:
        AtelierError: this is not a complete CLIP model, such as a text encoder without projection.
    """
    _refuse_parts(shapes, source)
    vocabulary, text_width = shapes[_TOKENS]
    vision_width, channels, patch, _ = shapes[_PATCHES]
    patches = shapes[_PATCH_POSITIONS][0] - 1
    projection = shapes["text_projection.weight"][0]
    activation = "quick_gelu" if vision_width <= _OPENAI_WIDEST else "gelu"
    text = {
        "vocab_size": vocabulary, "hidden_size": text_width, "projection_dim": projection,
        "max_position_embeddings": shapes[_TOKEN_POSITIONS][0],
        **_tower(shapes, _TEXT, activation, max(text_width // 64, 1)),
        "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1,
    }
    vision = {
        "hidden_size": vision_width, "num_channels": channels, "patch_size": patch, "projection_dim": projection,
        "image_size": math.isqrt(patches) * patch,
        **_tower(shapes, _VISION, activation, 16 if vision_width >= 1024 else max(vision_width // 64, 1)),
    }
    if known is not None:
        text |= _pick(known["text_config"], _UNSEEN_TEXT)
        vision |= _pick(known["vision_config"], _UNSEEN)
    return {"text_config": text, "vision_config": vision, "projection_dim": projection}


def _tower(shapes: Shapes, prefix: str, activation: str, heads: int) -> dict[str, Any]:
    layer = re.compile(re.escape(prefix) + r"encoder\.layers\.(\d+)\.mlp\.fc1\.weight")
    numbers = [int(match[1]) for name in shapes if (match := layer.fullmatch(name))]
    return {"num_hidden_layers": len(numbers), "num_attention_heads": heads, "hidden_act": activation,
            "intermediate_size": shapes[f"{prefix}encoder.layers.0.mlp.fc1.weight"][0]}


def _pick(values: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in names if values.get(name) is not None}


def _refuse_parts(shapes: Shapes, source: str) -> None:
    whole = ("Choose a whole CLIP model, as transformers saves it (model.safetensors with its config.json) or as "
             "OpenCLIP does (open_clip_model.safetensors).")
    needed = {
        "a text encoder": _TEXT + "encoder.layers.0.mlp.fc1.weight",
        "a text projection": "text_projection.weight",
        "a picture encoder": _VISION + "encoder.layers.0.mlp.fc1.weight",
        "a picture projection": "visual_projection.weight",
    }
    missing = [part for part, name in needed.items() if name not in shapes]
    if missing:
        raise AtelierError(f"{source} lacks {' and '.join(missing)}, so its texts and pictures cannot be compared; the "
                           "text encoder of a Stable Diffusion model is such a file.", whole)
    wrong = [name for name, dimensions in _DIMENSIONS.items() if len(shapes.get(name, ())) != dimensions]
    if wrong:
        raise AtelierError(f"{source} lacks {wrong[0]}, or has it in another shape than a CLIP model.", whole)
