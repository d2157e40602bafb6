"""Small random CLIP models in transformers' layout, with a tokenizer whose tokens can be counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import pre_tokenizers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SIZES = [(40, 50), (64, 32), (32, 32), (33, 91), (200, 201), (20, 20)]
TEXTS = ["a cat", "a dog", "a cat", "a cat wearing neon-glasses", "x" * 100, "b"]


def letter_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer without merges: every letter is one token, spaces are none."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: number for number, name in enumerate(names)}, merges=[])


def clip_config(*, text_width: int = 64, vision_width: int = 128, layers: int = 2, positions: int = 77,
                image: int = 32, patch: int = 8, projection: int = 48, activation: str = "quick_gelu",
                vocabulary: int = 514) -> CLIPConfig:
    """The configuration of a CLIP that computes in milliseconds; heads are 64 wide as in every released model."""
    shared = {"hidden_act": activation, "projection_dim": projection, "num_hidden_layers": layers}
    return CLIPConfig(
        text_config={"vocab_size": vocabulary, "hidden_size": text_width, "intermediate_size": 2 * text_width,
                     "num_attention_heads": text_width // 64, "max_position_embeddings": positions,
                     "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1,
                     **shared},
        vision_config={"hidden_size": vision_width, "intermediate_size": 3 * vision_width,
                       "num_attention_heads": vision_width // 64, "image_size": image, "patch_size": patch, **shared},
        projection_dim=projection)


def random_clip(config: CLIPConfig, seed: int = 0) -> CLIPModel:
    """A model whose outputs vary with their inputs: transformers' own start is too close to zero for that."""
    model = CLIPModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.named_parameters():
        if tensor.ndim >= 2 or "embedding" in name:
            scale = 0.5 if "embedding" in name else tensor[0].numel() ** -0.5
            tensor.data = torch.randn(tensor.shape, generator=generator) * scale
    return model


def save_clip(folder: Path, model: CLIPModel, *, config: bool = True, tokenizer: bool = True) -> Path:
    """Write the model as transformers does, with or without its configuration and tokenizer."""
    model.save_pretrained(folder)
    if not config:
        (folder / "config.json").unlink()
    if tokenizer:
        letter_tokenizer().save_pretrained(folder)
    return folder


def random_pictures(sizes: list[tuple[int, int]], seed: int = 0) -> list[Image.Image]:
    """Smooth random pictures of these (width, height)."""
    numbers = np.random.default_rng(seed)
    return [Image.fromarray(numbers.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
            for size in sizes]


def reference_processor(size: int = 32) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def reference_cosines(folder: Path, pictures: list[Image.Image], texts: list[str]) -> torch.Tensor:
    """The diagonal of `logits_per_image` over `exp(logit_scale)`: transformers' own forward pass."""
    model = CLIPModel.from_pretrained(folder).eval()
    words = letter_tokenizer()(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    pixels = reference_processor()(pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        out = model(**words, pixel_values=pixels)
        return torch.diag(out.logits_per_image) / model.logit_scale.exp()


def picture_cosines(folder: Path, pictures: list[Image.Image], reference: Image.Image) -> list[float]:
    """The cosine of each picture's embedding with that of another one, by transformers' own forward pass."""
    model = CLIPModel.from_pretrained(folder).eval()
    pixels = reference_processor()([*pictures, reference.convert("RGB")], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        out = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    return torch.nn.functional.cosine_similarity(out[:-1], out[-1:]).tolist()


def cosines(scores: Any) -> torch.Tensor:
    """The cosine of each picture, [N]."""
    return torch.tensor([item.cosine for item in scores.items])
