"""Encode prompts to embeddings as each family's diffusers pipeline does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .families import Family
from .tokenizer import LENGTH


@dataclass(frozen=True)
class TextBatch:
    """The encoded prompts of a batch."""

    embeds: Tensor
    """[B, 77, D]: one vector for each token; what the UNet's cross-attention reads."""
    pooled: Tensor | None
    """[B, P]: one vector for each prompt (SDXL), else None."""


class TextStack:
    """The tokenizers and text encoders of one model.

    Args:
        family: Says which hidden state each encoder gives and whether it is pooled.
        tokenizers: By the encoder's folder, "text_encoder" and "text_encoder_2".
        encoders: `CLIPTextModel` or `CLIPTextModelWithProjection` by the same names. A trainer may put adapters into
        them.
    """

    def __init__(self, family: Family, tokenizers: Mapping[str, Any], encoders: dict[str, nn.Module]) -> None:
        self.family = family
        self.tokenizers = dict(tokenizers)
        self.encoders = encoders

    def encode(self, texts: Sequence[str]) -> TextBatch:
        """Encode prompts, each cut or padded to 77 tokens. Gradients flow if they are enabled.

        SD1 takes the last hidden state after the final layer norm, SD2 the same of one layer fewer, SDXL the hidden
        states before the last layer of both encoders side by side, and the second one's projected embedding at the
        end token.
        """
        embeds: list[Tensor] = []
        pooled = None
        for spec in self.family.text_encoders:
            encoder = self.encoders[spec.folder]
            device = next(encoder.parameters()).device
            ids = self.tokenizers[spec.folder](list(texts), padding="max_length", max_length=LENGTH, truncation=True,
                                               return_tensors="pt").input_ids.to(device)
            out = encoder(ids, output_hidden_states=spec.layer == "penultimate")
            embeds.append(out.hidden_states[-2] if spec.layer == "penultimate" else out.last_hidden_state)
            if spec.pooled:
                pooled = out.text_embeds
        return TextBatch(torch.cat(embeds, dim=-1), pooled)

    def count(self, text: str) -> tuple[int, int]:
        """How many tokens of `text` are used, and how many are cut off because only 75 fit between start and end."""
        tokenizer = self.tokenizers[self.family.text_encoders[0].folder]
        # A private length, or the tokenizer warns about what is being asked.
        total = len(tokenizer(text, truncation=False, verbose=False, add_special_tokens=False).input_ids)
        return min(total, LENGTH - 2), max(0, total - (LENGTH - 2))
