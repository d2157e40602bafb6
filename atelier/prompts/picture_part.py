"""Pictures in messages: parts with a JPEG in a data URL, as every service that sees takes them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 1024
"""Longest side in pixels. Services scale larger pictures down themselves, and bill some of them by size."""
SMALLEST = 128
"""A picture whose longest side is below this is not worth asking about."""
_QUALITY = 90
_START = "data:image/jpeg;base64,"

Part = dict[str, Any]


def text_part(text: str) -> Part:
    """A part of a message that is text."""
    return {"type": "text", "text": text}


def picture_part(picture: Image) -> Part:
    """A part of a message with `picture`, scaled down to `SIDE` pixels. Equal pixels give equal parts.

    Args:
        picture: mode RGB.
    """
    return {"type": "image_url", "image_url": {"url": _encoded(picture, SIDE)}}


def longest_side(messages: Sequence[Mapping[str, Any]]) -> int:
    """Longest side of all pictures in `messages`, in pixels; 0 without any."""
    return max((max(_decoded(part["image_url"]["url"]).size) for part in _pictures(messages)), default=0)


def limited(messages: Sequence[Mapping[str, Any]], side: int) -> list[dict[str, Any]]:
    """`messages` with pictures of at most `side` pixels a side; smaller ones stay as they are."""
    def limited_part(part: Part) -> Part:
        if part.get("type") != "image_url":
            return part
        return {**part, "image_url": {"url": _limited_url(part["image_url"]["url"], side)}}

    return [{**message, "content": [limited_part(part) for part in message["content"]]}
            if isinstance(message["content"], list) else dict(message) for message in messages]


def _pictures(messages: Sequence[Mapping[str, Any]]) -> Iterator[Part]:
    for message in messages:
        if isinstance(message["content"], list):
            yield from (part for part in message["content"] if part.get("type") == "image_url")


@lru_cache(maxsize=16)
def _limited_url(url: str, side: int) -> str:
    picture = _decoded(url)
    return url if max(picture.size) <= side else _encoded(picture, side)


def _encoded(picture: Image, side: int) -> str:
    from PIL import Image

    if max(picture.size) > side:
        scale = side / max(picture.size)
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    data = BytesIO()
    picture.save(data, format="JPEG", quality=_QUALITY)
    return _START + base64.b64encode(data.getvalue()).decode("ascii")


def _decoded(url: str) -> Image:
    from PIL import Image

    return Image.open(BytesIO(base64.b64decode(url.removeprefix(_START))))
