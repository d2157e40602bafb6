"""The host's CLIP as an `Encoder` for weighted prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ...atelier.errors import AtelierError
from ...atelier.prompts.weights.embed import Encoded, TokenizedClause

ENCODERS = {"l", "g", "h"}
"""The host's names of CLIP-L, OpenCLIP bigG and OpenCLIP H: the text encoders of SD1, SDXL and SD2."""
FIRST_TAG = 2
"""Weights from this value on are tags; the host gives 1 to start, end and padding tokens."""


class ClipEncoder:
    """Wraps a host `CLIP` (SD1, SD2, SDXL) with its clip skip, LoRAs, textual inversions and memory management.

    The host's own tokenizer splits long prompts into chunks and finds embeddings. It gives each token a weight;
    here the weight carries the number of the token's fragment, and is reset to 1 before encoding.
    """

    def __init__(self, clip: Any) -> None:
        self.clip = clip
        self.extra: dict[str, Any] = {}
        """What the last `encode` returned beside embeddings and pooled vector, such as hooks."""

    def tokenize(self, fragments: Sequence[str]) -> TokenizedClause:
        """Tokenize the fragments; `content` is the result of the host's `tokenize` with all weights 1.

        Raises:
            AtelierError: the text encoder is no CLIP, or its parts see different numbers of tokens.
        """
        tagged = self.clip.tokenize(_tagged(fragments))
        if not set(tagged) <= ENCODERS:
            raise AtelierError(f"Weighted prompts need a CLIP text encoder; this one is {', '.join(tagged)}.",
                               "Use the CLIP of an SD1, SD2 or SDXL model, or core's CLIP Text Encode.")
        owners = {name: [[max(int(weight) - FIRST_TAG, -1) for _, weight in section] for section in sections]
                  for name, sections in tagged.items()}
        first, *others = owners.values()
        if any(owner != first for owner in others):
            raise AtelierError("An embedding in the prompt has a different length in each of the two text encoders.",
                               "Use one that was made for this family, or core's CLIP Text Encode.")
        plain = {name: [[(token, 1.0) for token, _ in section] for section in sections]
                 for name, sections in tagged.items()}
        return TokenizedClause(plain, torch.tensor(first).flatten())

    def encode(self, tokens: TokenizedClause, without: Sequence[int | None]) -> Encoded:
        """Encode all variants in one call, as additional chunks.

        Args:
            tokens: From `tokenize`.
            without: For each variant the number of the fragment to hide from attention; None hides nothing.
        """
        count = len(without)
        hidden = torch.stack([torch.zeros_like(tokens.owner).bool() if index is None else tokens.owner == index
                              for index in without])
        mask = (~hidden).long().reshape(count * len(next(iter(tokens.content.values()))), -1)
        repeated = {name: sections * count for name, sections in tokens.content.items()}
        with _attention_mask(self.clip, repeated, mask):
            encoded = self.clip.encode_from_tokens(repeated, return_dict=True)
        embeds, pooled = encoded.pop("cond"), encoded.pop("pooled_output")
        self.extra = encoded
        return Encoded(embeds.reshape(count, -1, embeds.shape[-1]), pooled)


def token_counter(clip: Any) -> Callable[[str], int] | None:
    """A function that counts tokens as `clip` does; None if its tokenizer ignores weights, which mark the tokens."""
    def count(text: str) -> int:
        sections = next(iter(clip.tokenize(_tagged([text])).values()))
        return sum(weight >= FIRST_TAG for section in sections for _, weight in section)

    return count if count("a") == 1 else None


def _tagged(fragments: Sequence[str]) -> str:
    """The fragments in the host's weight syntax, each with its number as weight."""
    # The host reads a weight without words as text, so empty fragments are left out.
    return " ".join(f"({_escape(text)}:{index + FIRST_TAG})" for index, text in enumerate(fragments) if text.strip())


def _escape(text: str) -> str:
    return text.replace("(", r"\(").replace(")", r"\)")


@contextmanager
def _attention_mask(clip: Any, tokens: dict[str, Any], mask: torch.Tensor) -> Iterator[None]:
    """Hide the positions where `mask` `[chunks, 77]` is 0 from attention in all text encoders of `clip`."""
    if bool(mask.all()):
        yield
        return

    def add_mask(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # The host calls its text models with (tokens or None, attention mask or None, …).
        ids, own_mask, *rest = args
        visible = mask.to(kwargs["embeds"].device)
        return (ids, visible if own_mask is None else own_mask * visible, *rest), kwargs

    with ExitStack() as stack:
        for name in tokens:
            model = getattr(clip.cond_stage_model, f"clip_{name}").transformer
            stack.callback(model.register_forward_pre_hook(add_mask, with_kwargs=True).remove)
        yield
