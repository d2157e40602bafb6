"""Text in the lowest bits of a picture's transparency, where NovelAI and others keep a second copy.

Column by column, one bit a pixel, the highest bit of each byte first: a mark of 15 bytes, the length in bits (32 bits,
the highest byte first), and the text in UTF-8, gzipped after the second mark.
"""

from __future__ import annotations

import zlib

import numpy as np

from ..decode import DECODER_ERRORS, MAX_PIXELS
from ..png import MOST_TEXT

_PLAIN, _PACKED = b"stealth_pnginfo", b"stealth_pngcomp"
_GZIP = 16 + zlib.MAX_WBITS


def stealth_text(data: bytes) -> str:
    """The hidden text of a picture file with transparency; "" where there is none, or where the pixels are damaged."""
    from io import BytesIO

    from PIL import Image

    try:
        with Image.open(BytesIO(data)) as picture:
            if picture.mode != "RGBA" or picture.width * picture.height > MAX_PIXELS:
                return ""
            bits = np.asarray(picture.getchannel("A")).T.reshape(-1) & 1
    except DECODER_ERRORS:
        return ""
    begin = len(_PLAIN) + 4
    head = np.packbits(bits[:8 * begin]).tobytes()
    mark, length = head[:len(_PLAIN)], int.from_bytes(head[len(_PLAIN):], "big")
    if mark not in (_PLAIN, _PACKED) or length > 8 * MOST_TEXT:
        return ""
    content = np.packbits(bits[8 * begin:8 * begin + length]).tobytes()
    if mark == _PACKED:
        try:
            content = zlib.decompressobj(_GZIP).decompress(content, MOST_TEXT)
        except zlib.error:
            return ""
    return content.decode("utf-8", errors="replace")
