"""API keys that must not leak: put into a host's environment, and searched for in its files, log and answers.

    with watched(Host(folder)) as host:
        …
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit.host import Host
from PIL import Image

KEYS = {"OPENAI_API_KEY": "sk-zuvyqkxowtrpnlmhzjqw-quokka", "GOOGLE_API_KEY": "AIzaWKQXZVTRHYPNMGLJwk-numbat"}
"""Environment variable and key; no digest and no other test's key contains these letters."""

ENDPOINTS = ("/history", "/object_info", "/queue", "/settings", "/internal/logs", "/system_stats")
_PIECE = 8
"""This many consecutive characters of a key count as a trace of it."""


@contextmanager
def watched(host: Host) -> Iterator[Host]:
    """Run a host with the keys in its environment, and check at the end that it left no trace of them."""
    with pytest.MonkeyPatch.context() as environment:
        for name, key in KEYS.items():
            environment.setenv(name, key)
        host.start()
    try:
        yield host
        found = leaks(host)
        assert not found, found
    finally:
        host.stop()


def traces(content: bytes) -> list[str]:
    """Names of the keys of which `content` contains a part, in plain text or in base 64."""
    found = []
    for name, key in KEYS.items():
        pieces = {key[start:start + _PIECE].encode() for start in range(len(key) - _PIECE + 1)}
        # Base 64 encodes groups of three bytes: of three neighbouring pieces, one begins at such a group.
        pieces |= {base64.b64encode(key[start:start + 12].encode()) for start in range(len(key) - 11)}
        found += [name] if any(piece in content for piece in pieces) else []
    return found


def leaks(host: Host) -> dict[str, list[str]]:
    """Places where a host shows traces of keys: its log, its answers, and every file below its folder.

    Excluded are custom nodes, and the weights behind the headers of model files.
    """
    places = {"log": host.log().encode(), **{path: host.get(path) for path in ENDPOINTS}}
    for file in host.base.rglob("*"):
        if file.is_file() and "custom_nodes" not in file.parts and file.suffix != ".ckpt":
            places[file.relative_to(host.base).as_posix()] = _readable(file)
    return {name: found for name, content in places.items() if (found := traces(content))}


def _readable(file: Path) -> bytes:
    """The bytes of a file to search: with a picture's texts, uncompressed; of model files the first megabyte."""
    with file.open("rb") as opened:
        content = opened.read(2**20 if file.suffix == ".safetensors" else -1)
    if file.suffix in (".png", ".webp", ".jpg"):
        with Image.open(io.BytesIO(content)) as picture:
            content += repr(picture.info).encode()
    return content
