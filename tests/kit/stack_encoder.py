"""An `Encoder` of weighted prompts over transformers' text encoders, to compare `weights.embed` with compel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from atelier.models.text import TextStack
from atelier.models.tokenizer import LENGTH
from atelier.prompts.weights.embed import Encoded, TokenizedClause

CHUNK_TOKENS = LENGTH - 2
"""Tokens of a chunk between its start and end tokens."""


class StackEncoder:
    """A `TextStack` (SD1, SD2, SDXL). Prompts of more than 75 tokens take several chunks, cut wherever 75 are full."""

    def __init__(self, stack: TextStack) -> None:
        self.stack = stack

    def tokenize(self, fragments: Sequence[str]) -> TokenizedClause:
        """Tokens with owners; `content` holds [chunks, 77] ids by encoder, as padding differs between them."""
        tokenizers = {spec.folder: self.stack.tokenizers[spec.folder] for spec in self.stack.family.text_encoders}
        words = next(iter(tokenizers.values()))
        ids: list[int] = []
        owners: list[int] = []
        for index, fragment in enumerate(fragments):
            found = words(fragment, add_special_tokens=False, truncation=False, verbose=False).input_ids
            ids += found
            owners += [index] * len(found)
        chunks = [slice(begin, begin + CHUNK_TOKENS) for begin in range(0, len(ids), CHUNK_TOKENS)] or [slice(0, 0)]
        content = {folder: torch.tensor([_chunk(ids[part], tokenizer) for part in chunks])
                   for folder, tokenizer in tokenizers.items()}
        owner = [[-1, *owners[part], *[-1] * (LENGTH - 1 - len(owners[part]))] for part in chunks]
        return TokenizedClause(content, torch.tensor(owner).flatten())

    def encode(self, tokens: TokenizedClause, without: Sequence[int | None]) -> Encoded:
        """All variants in one pass of each encoder. Gradients are not kept."""
        hidden = torch.stack([tokens.owner == index if index is not None else torch.zeros_like(tokens.owner).bool()
                              for index in without])
        embeds, pooled = [], None
        for spec in self.stack.family.text_encoders:
            encoder = self.stack.encoders[spec.folder]
            device = next(encoder.parameters()).device
            ids = tokens.content[spec.folder].repeat(len(without), 1).to(device)
            mask = (~hidden).long().reshape(ids.shape).to(device)
            with torch.no_grad():
                out = encoder(ids, attention_mask=mask, output_hidden_states=spec.layer == "penultimate")
            state = out.hidden_states[-2] if spec.layer == "penultimate" else out.last_hidden_state
            embeds.append(state.reshape(len(without), -1, state.shape[-1]))
            if spec.pooled:
                pooled = out.text_embeds.reshape(len(without), -1, out.text_embeds.shape[-1])[:, 0]
        return Encoded(torch.cat(embeds, dim=-1), pooled)


def _chunk(ids: Sequence[int], tokenizer: Any) -> list[int]:
    padding = [tokenizer.pad_token_id] * (CHUNK_TOKENS - len(ids))
    return [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *padding]
