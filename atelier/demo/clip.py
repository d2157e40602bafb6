"""A small CLIP for the demo's pictures, expanded into a folder that transformers' `CLIPModel` loads.

Its encoders are trained; its token embeddings, which would be most of the file, are generated from a seed like the base
model's text encoder. Its scores are meaningful for the demo's pictures only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import AtelierError
from ..files import atomic_folder, write_json
from ..models.tokenizer import write_tokenizer
from ..progress import Progress
from ..score.preprocess import MEAN, STD
from . import asset
from .layout import sha256, write_fp16
from .seeded import uniform

ASSET = Path(__file__).with_name("clip.safetensors")
DIGEST = ASSET.with_suffix(".sha256")
"""Text file with the SHA-256 of the expanded model.safetensors."""
FOLDER_NAME = "atelier-demo-clip"
SIDE = 64
TOKENS = "text_model.embeddings.token_embedding.weight"

CONFIG: dict[str, Any] = {
    "model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": 128, "logit_scale_init_value": 2.6592,
    "text_config": {
        "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "projection_dim": 128,
        "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
    },
    "vision_config": {
        "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 2,
        "image_size": SIDE, "patch_size": 8, "hidden_act": "quick_gelu", "projection_dim": 128,
    },
}


def token_embeddings() -> np.ndarray:
    """The text encoder's token embeddings, fp16 `[49408, 128]`."""
    text = CONFIG["text_config"]
    return uniform(f"demo-clip.{TOKENS}", (text["vocab_size"], text["hidden_size"]), 0.1)


def expand_clip(dst: Path, progress: Progress | None = None) -> Path:
    """Write the demo's CLIP as the folder `dst`, with tokenizer and image processor, unless it already exists.

    Raises:
        AtelierError: the asset is damaged, the disk is full, no list of CLIP's merges is installed, or the result's
            hash is not the recorded one.
    """
    expected = DIGEST.read_text(encoding="ascii").strip()
    weights = dst / "model.safetensors"
    if weights.is_file() and sha256(weights) == expected:
        return dst
    with atomic_folder(dst) as part:
        digest = write(part / "model.safetensors", progress or Progress())
        if digest != expected:
            raise AtelierError(f"The demo's CLIP has hash {digest[:12]}… instead of {expected[:12]}….",
                               "Install the pack again; if that does not help, report processor and NumPy version.")
        write_json(part / "config.json", CONFIG)
        write_json(part / "preprocessor_config.json", {
            "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": SIDE},
            "do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE}, "resample": 3, "do_normalize": True,
            "image_mean": list(MEAN), "image_std": list(STD), "do_convert_rgb": True})
        write_tokenizer(part)
    return dst


def write(path: Path, progress: Progress) -> str:
    """Write the expanded weights to `path` and return their SHA-256, without comparing it to anything."""
    tensors = asset.read(ASSET) | {TOKENS: token_embeddings()}
    return write_fp16(path, {name: tensor.shape for name, tensor in tensors.items()}, tensors.__getitem__,
                      "Atelier demo CLIP", progress)
