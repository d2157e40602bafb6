"""The texts in a PNG file, read or left out chunk by chunk (PNG 1.2, sections 3.2 and 4.2.3).

Pillow gives up the whole picture for one compressed text of more than a megabyte, which workflows reach.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_TEXT = 2**24
"""Bytes of one text that are looked at; a picture's own may be a whole workflow."""
_MOST_UNPACKED = 4 * MOST_TEXT
"""Bytes that a file's compressed texts may have together."""
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_TURNING = (b"XML:com.adobe.xmp", b"Raw profile type exif")
"""Keywords of texts that may say which side of a picture is up."""
_MOST_TURNING = 2**20
"""Unpacked bytes of such a text that Pillow takes."""


@dataclass
class PngTexts:
    """What a PNG file says."""

    texts: dict[str, str] = field(default_factory=dict)
    """By keyword; of equal ones the last counts."""
    exif: bytes = b""
    left_out: list[str] = field(default_factory=list)
    """Keywords of texts that are too long."""
    has_pixels: bool = False
    """Whether the file goes on to where its pixels begin."""


def png_texts(data: bytes) -> PngTexts:
    """Read the chunks of a PNG file. Damaged ones are passed by, and a file cut short counts as far as it goes."""
    found = PngTexts()
    room = _MOST_UNPACKED
    for kind, body, _ in _chunks(data):
        if kind == b"IDAT":
            found.has_pixels = True
        elif kind == b"eXIf":
            found.exif = body
        elif kind in _TEXTS:
            keyword, _, rest = body.partition(b"\0")
            name = keyword.decode("latin-1")
            packed, code, content = _content(kind, rest)
            if packed:
                try:
                    content = zlib.decompressobj().decompress(content, min(MOST_TEXT, room) + 1) if room else b""
                except zlib.error:
                    continue
                too_long = not room or len(content) > min(MOST_TEXT, room)
                room = max(room - len(content), 0)
            else:
                too_long = len(content) > MOST_TEXT
            if too_long:
                found.left_out.append(name)
            else:
                found.texts[name] = _decoded(content, code)
    return found


def _decoded(content: bytes, code: str) -> str:
    """A text. The standard wants Latin-1 in tEXt and zTXt, but programs write UTF-8, which no Latin-1 looks like."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode(code, errors="replace")


def png_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from a PNG file's first chunk; None for any other file."""
    if not data.startswith(SIGNATURE) or data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return struct.unpack_from(">II", data, 16)


def without_texts(data: bytes) -> bytes:
    """The same picture without its texts, but for those that say how it is turned; other files come back as they are.

    Texts with a wrong checksum stay: whether such a file can be used is for the decoder to say.
    """
    if not data.startswith(SIGNATURE):
        return data
    kept, place = [], 0
    for kind, body, (begin, end) in _chunks(data):
        if kind in _TEXTS and not _turns(kind, body):
            kept.append(data[place:begin])
            place = end
    return b"".join((*kept, data[place:])) if kept else data


def _turns(kind: bytes, body: bytes) -> bool:
    keyword, _, rest = body.partition(b"\0")
    if keyword not in _TURNING:
        return False
    packed, _, content = _content(kind, rest)
    if packed:
        try:
            content = zlib.decompressobj().decompress(content, _MOST_TURNING + 1)
        except zlib.error:
            return False
    return len(content) <= _MOST_TURNING


def _content(kind: bytes, rest: bytes) -> tuple[bool, str, bytes]:
    """Whether a text is compressed, its encoding, and its bytes; `rest` is what stands behind the keyword."""
    if kind == b"tEXt":
        return False, "latin-1", rest
    if kind == b"zTXt":
        return True, "latin-1", rest[1:]
    # Two bytes on compression, then the language and the translated keyword, each with a zero at its end.
    return rest[:1] == b"\1", "utf-8", rest[2:].partition(b"\0")[2].partition(b"\0")[2]


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, tuple[int, int]]]:
    """Kinds, contents and places (begin, end) of whole, undamaged chunks; of IDAT, which may be long and damaged, no
    content."""
    place = len(SIGNATURE)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        begin, body, place = place, place + 8, place + 12 + length
        if kind == b"IDAT":
            yield kind, b"", (begin, place)
        elif kind == b"IEND" or place > len(data):
            return
        elif zlib.crc32(data[body - 4:place - 4]) == int.from_bytes(data[place - 4:place], "big"):
            yield kind, data[body:place - 4], (begin, place)
