"""Keys that must never be seen: put into a host's environment, and looked for in all that it wrote and answers.

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
"""Name of the environment variable, and the key in it: letters that no digest and no other test's key looks like."""

ENDPOINTS = ("/history", "/object_info", "/queue", "/settings", "/internal/logs", "/system_stats")
_PIECE = 8
"""So many consecutive characters of a key are a trace of it."""


@contextmanager
def watched(host: Host) -> Iterator[Host]:
    """Run a host that has the keys in its environment; in the end no trace of them may be left."""
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
    """Names of the keys of which some part stands in `content`, plainly or in base 64."""
    found = []
    for name, key in KEYS.items():
        pieces = {key[start:start + _PIECE].encode() for start in range(len(key) - _PIECE + 1)}
        # Base 64 makes four letters of three bytes: of three neighbouring pieces one begins where such a group does.
        pieces |= {base64.b64encode(key[start:start + 12].encode()) for start in range(len(key) - 11)}
        found += [name] if any(piece in content for piece in pieces) else []
    return found


def leaks(host: Host) -> dict[str, list[str]]:
    """Where a host shows traces of keys: its log, what it answers, and every file below its folder.

    Other people's files are left out: custom nodes, and the weights in files that are larger than a header.
    """
    places = {"log": host.log().encode(), **{path: host.get(path) for path in ENDPOINTS}}
    for file in host.base.rglob("*"):
        if file.is_file() and "custom_nodes" not in file.parts and file.suffix != ".ckpt":
            places[file.relative_to(host.base).as_posix()] = _readable(file)
    return {name: found for name, content in places.items() if (found := traces(content))}


def _readable(file: Path) -> bytes:
    """What can be read in a file: a picture's texts, which may be packed, too; of weights the first megabyte."""
    with file.open("rb") as opened:
        content = opened.read(2**20 if file.suffix == ".safetensors" else -1)
    if file.suffix in (".png", ".webp", ".jpg"):
        with Image.open(io.BytesIO(content)) as picture:
            content += repr(picture.info).encode()
    return content
