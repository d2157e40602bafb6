"""The demo model's text encoder: 123 million untrained weights, generated from a seed instead of stored.

A random transformer preserves the content of simple captions: a linear probe recovers every word from its output, and
the UNet's cross-attention learns to. The weights come from Philox 4×64-10 (Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3"), a counter-based generator whose raw bits are fixed by its definition. NumPy's
normal stream is not: it may change between versions. Bits become a uniform distribution by elementwise IEEE arithmetic,
the same on every machine.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from .architecture import TEXT

_WIDTH, _INNER = TEXT["hidden_size"], TEXT["intermediate_size"]
_DEVIATIONS = {
    "token_embedding": 1.0, "position_embedding": 0.5,
    # Sharper attention than usual: its scores must differ without training.
    "q_proj": 1.4 / math.sqrt(_WIDTH), "k_proj": 1.4 / math.sqrt(_WIDTH), "v_proj": 1 / math.sqrt(_WIDTH),
    "out_proj": 0.5 / math.sqrt(_WIDTH), "fc1": 1 / math.sqrt(_WIDTH), "fc2": 0.5 / math.sqrt(_INNER),
}


def uniform(name: str, shape: tuple[int, ...], deviation: float) -> np.ndarray:
    """Return fp16 numbers of mean 0, uniform within ±√3 `deviation`; equal arguments give equal bits everywhere.

    Args:
        name: Seeds the generator, so that tensors do not depend on the order of their creation.
        shape: Shape of the result.
        deviation: Standard deviation.
    """
    count = math.prod(shape)
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    words = np.random.Philox(key=key).random_raw(-(-count // 4)).astype("<u8", copy=False).view("<u2")[:count]
    # 16 random bits to the middle of one of 65536 equal intervals of (-1, 1).
    unit = (words.astype(np.float32) - np.float32(32767.5)) * np.float32(2.0**-15)
    return (unit * np.float32(deviation * math.sqrt(3))).astype(np.float16).reshape(shape)


def text_encoder_shapes() -> dict[str, tuple[int, ...]]:
    """Name every tensor of a CLIP ViT-L/14 text encoder, in the layout of transformers' `CLIPTextModel`."""
    embeddings, shapes = "text_model.embeddings", {}
    shapes[f"{embeddings}.position_embedding.weight"] = (TEXT["max_position_embeddings"], _WIDTH)
    shapes[f"{embeddings}.token_embedding.weight"] = (TEXT["vocab_size"], _WIDTH)
    for i in range(TEXT["num_hidden_layers"]):
        layer = f"text_model.encoder.layers.{i}"
        for part, rows, columns in (("self_attn.k_proj", _WIDTH, _WIDTH), ("self_attn.out_proj", _WIDTH, _WIDTH),
                                    ("self_attn.q_proj", _WIDTH, _WIDTH), ("self_attn.v_proj", _WIDTH, _WIDTH),
                                    ("mlp.fc1", _INNER, _WIDTH), ("mlp.fc2", _WIDTH, _INNER)):
            shapes[f"{layer}.{part}.weight"], shapes[f"{layer}.{part}.bias"] = (rows, columns), (rows,)
        for norm in ("layer_norm1", "layer_norm2"):
            shapes[f"{layer}.{norm}.weight"] = shapes[f"{layer}.{norm}.bias"] = (_WIDTH,)
    shapes["text_model.final_layer_norm.weight"] = shapes["text_model.final_layer_norm.bias"] = (_WIDTH,)
    return shapes


def text_encoder_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make one fp16 tensor of the text encoder; `name` as in `text_encoder_shapes`."""
    module, kind = name.split(".")[-2:]
    if kind == "bias":
        return np.zeros(shape, np.float16)
    if "norm" in module:
        return np.ones(shape, np.float16)
    return uniform(name, shape, _DEVIATIONS[module])
