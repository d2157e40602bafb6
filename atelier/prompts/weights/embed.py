"""Compel's arithmetic on a text encoder's embeddings.

Each word's embedding is scaled relative to the empty prompt's: away from it for a weight w above 1, towards it below.
For w below 1 the result is also averaged with the embedding of the prompt in which those words are masked, in a ratio
of tan((1 - w) π/2) to 1, so that w = 0.5 lies half-way and w = 0 is the prompt without them. Source: compel 2
(D. Stewart), doc/syntax.md and the comments of its embeddings provider.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .syntax import Blend, Clause, WeightedPrompt, parse

LIGHTEST = 1e-5
"""Weights below count as this; tan would be infinite at 0."""


@dataclass(frozen=True)
class TokenizedClause:
    """A tokenized clause."""

    content: Any
    """Token data in the encoder's own type."""
    owner: Tensor
    """[S] integers: index of each position's fragment; -1 for start, end and padding."""


@dataclass(frozen=True)
class Encoded:
    """Embeddings as a text encoder gives them. N variants, S positions, width D."""

    embeds: Tensor
    """[N, S, D]"""
    pooled: Tensor | None
    """[N, P], or None for encoders without one."""


class Encoder(Protocol):
    """A text encoder with its tokenizer, of any implementation."""

    def tokenize(self, fragments: Sequence[str]) -> TokenizedClause:
        """Tokens of the concatenated fragments, with start, end and padding, in as many chunks as needed."""
        ...

    def encode(self, tokens: TokenizedClause, without: Sequence[int | None]) -> Encoded:
        """One variant for each entry of `without`: the index of the masked fragment, or None."""
        ...


def weighted(text: str, encoder: Encoder) -> Encoded:
    """The conditioning of a prompt in compel's syntax, N = 1.

    The pooled vector ignores weights (a blend's is the mean, a conjunction's the first): one vector for the whole
    prompt has no part that belongs to a word.

    Raises:
        AtelierError: the text is not in the syntax; see `syntax.parse`.
    """
    return embed(parse(text), encoder)


def embed(prompt: WeightedPrompt, encoder: Encoder) -> Encoded:
    """The conditioning of a parsed prompt; `.and()` parts are concatenated along positions."""
    empty = _Empty(encoder)
    parts = [_blend(part, encoder, empty) if isinstance(part, Blend) else _clause(part, encoder, empty)
             for part in prompt.parts]
    scaled = [part.embeds if weight == 1 else _from_empty(part.embeds, empty.like(part.embeds), weight)
              for part, weight in zip(parts, prompt.weights, strict=True)]
    return Encoded(torch.cat(scaled, dim=1), parts[0].pooled)


def _clause(clause: Clause, encoder: Encoder, empty: _Empty) -> Encoded:
    tokens = encoder.tokenize([fragment.text for fragment in clause.fragments])
    weights = [fragment.weight for fragment in clause.fragments]
    light = [index for index, weight in enumerate(weights) if weight < 1]
    encoded = encoder.encode(tokens, [None, *light])
    variants = encoded.embeds.float()
    # Start, end and padding have owner -1 and so take the table's last entry.
    table = torch.tensor([*weights, 1.0], dtype=variants.dtype, device=variants.device)
    per_position = table[tokens.owner.to(variants.device)][None, :, None]
    if not bool((per_position == 1).all()):
        heavier = _from_empty(variants, empty.like(variants), per_position)
        variants = torch.where(per_position == 1, variants, heavier)
    pulls = [1.0, *(math.tan((1 - max(weights[index], LIGHTEST)) * math.pi / 2) for index in light)]
    mean = _mean(variants, pulls, normalize=True)
    return Encoded(mean, None if encoded.pooled is None else encoded.pooled[:1])


def _blend(blend: Blend, encoder: Encoder, empty: _Empty) -> Encoded:
    parts = [_clause(clause, encoder, empty) for clause in blend.clauses]
    longest = max(part.embeds.shape[1] for part in parts)
    padded = [torch.cat([part.embeds, empty.of_length(longest - part.embeds.shape[1], part.embeds)], dim=1)
              for part in parts]
    pooled = [part.pooled.float() for part in parts if part.pooled is not None]
    return Encoded(_mean(torch.cat(padded), blend.weights, blend.normalize),
                   _mean(torch.cat(pooled), blend.weights, blend.normalize) if pooled else None)


def _mean(variants: Tensor, weights: Sequence[float], normalize: bool) -> Tensor:
    """[N, …] to [1, …]."""
    factors = torch.tensor(weights, dtype=variants.dtype, device=variants.device)
    if normalize:
        factors = factors / factors.sum()
    return torch.einsum("n,n...->...", factors, variants)[None]


def _from_empty(embeds: Tensor, empty: Tensor, weight: Tensor | float) -> Tensor:
    return empty + (embeds - empty) * weight


class _Empty:
    """The empty prompt's embedding, encoded once when first needed and repeated to any number of chunks."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._embeds: Tensor | None = None

    def like(self, embeds: Tensor) -> Tensor:
        return self.of_length(embeds.shape[1], embeds)

    def of_length(self, positions: int, like: Tensor) -> Tensor:
        """[1, positions, D]"""
        if self._embeds is None:
            self._embeds = self._encoder.encode(self._encoder.tokenize([""]), [None]).embeds.float().to(like.device)
        return self._embeds.repeat(1, positions // self._embeds.shape[1], 1)
