"""What of the captions the text encoder never sees."""

from __future__ import annotations

from ..convert.tokenizer import LENGTH
from ..dataset.types import TrainingSet
from ..models.text import TextStack

_FIT = LENGTH - 2
"""Tokens between start and end."""


def cut_captions(data: TrainingSet, text: TextStack) -> str:
    """A sentence on the pictures whose captions are cut in training; empty where all fit.

    Args:
        data: Pictures and captions.
        text: Its tokenizers count; encoders are not used.
    """
    lengths = {caption: sum(text.count(caption)) for sample in data.samples for caption in sample.captions
               if len(caption.encode()) > _FIT}  # a token is at least a byte
    cut = [(sample, longest) for sample in data.samples
           if (longest := max(lengths.get(caption, 0) for caption in sample.captions)) > _FIT]
    if not cut:
        return ""
    (first, tokens), many = cut[0], len(cut)
    return (f"{many} of {len(data.samples)} pictures {'has a caption' if many == 1 else 'have captions'} of more than "
            f"{_FIT} tokens; the text encoder takes no more, and the rest is not learnt "
            f"(first: {first.image.name}, {tokens} tokens).")
