"""What a person changed in the review: other captions, and pictures left out."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import AtelierError
from ..json_files import parse_json

LONGEST_EDITS = 4_000_000
"""Characters; the captions of some ten thousand pictures."""

Edits = Mapping[str, "str | None"]
"""By digest of the picture's file: its caption, or None for a picture that is left out."""


def parse_edits(text: str) -> Edits:
    """The edits that the editor keeps in the graph as JSON: `{"<digest>": "a caption", "<digest>": null}`.

    Raises:
        AtelierError: it is something else.
    """
    if not text.strip():
        return {}
    try:
        edits = parse_json(text) if len(text) <= LONGEST_EDITS else None
    except ValueError:
        edits = None
    if not isinstance(edits, dict) or not all(text is None or isinstance(text, str) for text in edits.values()):
        raise AtelierError(f"The edits of the captions cannot be read: {text[:80]!r}.",
                           "Empty the widget edits; it is filled by the list of captions on the node.")
    return {digest: None if caption is None else " ".join(caption.replace("\0", " ").split())
            for digest, caption in edits.items()}
