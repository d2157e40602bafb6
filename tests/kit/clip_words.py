"""CLIP's real vocabulary, from the file that the package `open_clip` brings."""

from __future__ import annotations

import gzip
import importlib.util
from functools import cache
from pathlib import Path

from transformers import CLIPTokenizer

MERGES = 49152 - 256 - 2
"""Merge rules of CLIP's byte-pair encoding; the file holds more."""


@cache
def clip_tokenizer() -> CLIPTokenizer:
    """The tokenizer of CLIP ViT-L/14, and so of SD1's text encoder: 49408 tokens, 77 positions, padded with the end."""
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1:MERGES + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    characters = _characters()
    names = [*characters, *(c + "</w>" for c in characters), *(a + b for a, b in merges),
             "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: number for number, name in enumerate(names)}, merges=merges,
                         model_max_length=77)


def _characters() -> list[str]:
    """One printable character for each byte, in the order of CLIP's vocabulary: printable bytes first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + index) for index in range(len(others)))]
