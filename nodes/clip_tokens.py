"""Token tables of the host's CLIP text encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..atelier.errors import AtelierError

if TYPE_CHECKING:
    from ..atelier.explain.tokens import TokenTable

ENCODERS = ("l", "g", "h")
"""The host's names for CLIP-L, OpenCLIP bigG and OpenCLIP H."""


def token_tables(clip: Any, text: str) -> list[TokenTable]:
    """Tables of the tokens of `text` in the CLIP encoders of the host's `clip`; encoders with equal tokens share one.

    Raises:
        AtelierError: none of the text encoders is a CLIP.
    """
    from ..atelier.explain.tokens import Token, TokenTable

    sections = clip.tokenize(text, return_word_ids=True)
    encoders: dict[tuple[Token, ...], list[str]] = {}
    for name in (name for name in ENCODERS if name in sections):
        entries = host_tokenizer(clip, name).inv_vocab
        tokens = tuple(Token(token if isinstance(token, int) else None,
                             entries[token] if isinstance(token, int) else "embedding</w>", weight, chunk)
                       for chunk, section in enumerate(sections[name]) for token, weight, word in section if word)
        encoders.setdefault(tokens, []).append(f"clip_{name}")
    if not encoders:
        raise AtelierError(f"Tokens are shown for CLIP text encoders; this one is {', '.join(sections)}.",
                           "Connect the CLIP of an SD1, SD2 or SDXL model.")
    return [TokenTable(tokens, tuple(names)) for tokens, names in encoders.items()]


def host_tokenizer(clip: Any, name: str) -> Any:
    """The host's tokenizer of one of the text encoders in `clip`, such as "l" or "clip_l"."""
    return getattr(clip.tokenizer, name if name.startswith("clip_") else f"clip_{name}")
