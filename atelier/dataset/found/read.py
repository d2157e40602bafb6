"""Find the prompt in a picture file, whichever program wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..images import DECODER_ERRORS, UnreadablePicture, read_file
from ...errors import AtelierError
from .graph import parse_graph
from .infotext import parse_infotext, parse_summary
from .invoke import parse_invoke, parse_invoke_2
from .settings import Found, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image

_USER_COMMENT, _EXIF_FOLDER, _DESCRIPTION, _MAKE, _MODEL = 0x9286, 0x8769, 0x010E, 0x010F, 0x0110
"""Tags of EXIF 2.32."""
_MOST_TEXT = 2**24
"""Characters of metadata that are looked at; a picture's own may be a whole workflow."""


def read_prompt(path: Path) -> Found:
    """Prompt and settings of a PNG, JPEG or WebP file (or another that Pillow reads).

    Raises:
        UnreadablePicture: the file is no picture.
        AtelierError: it says nothing of how it was made, or nothing that can be read.
    """
    from io import BytesIO

    from PIL import Image

    try:
        with Image.open(BytesIO(read_file(path))) as picture:
            texts = _texts(picture)
    except DECODER_ERRORS as error:
        raise UnreadablePicture(path, "it is no picture, or damaged") from error
    found = find_prompt(texts)
    if found is None:
        what = "holds metadata, but no prompt that can be read" if texts else "holds no metadata"
        raise AtelierError(f"{path.name} {what}.", "Use the original file: web sites, editors and messengers "
                                                   "remove what a picture says of its making.")
    return found


def find_prompt(texts: Mapping[str, str]) -> Found | None:
    """The first readable description among texts by keyword; None if there is none.

    Keywords: `parameters` (A1111, Forge, CivitAI), `invokeai_metadata`, `sd-metadata`, `prompt` (ComfyUI); others are
    tried as each of these.
    """
    readers = {"parameters": _infotext, "UserComment": _any, "invokeai_metadata": _invoke, "sd-metadata": _invoke_2,
               "prompt": _comfy, "Description": _infotext, "ImageDescription": _any, "Comment": _any}
    for keyword, read in readers.items():
        if keyword in texts and (found := read(texts[keyword][:_MOST_TEXT])) is not None and not found.empty:
            return found
    return None


def _infotext(written: str) -> Found | None:
    found = parse_infotext(written)
    # A text without any setting may be anything: a caption, a copyright.
    return found if found.steps is not None or found.seed is not None or found.negative else None


def _invoke(written: str) -> Found | None:
    values = _json(written)
    return parse_invoke(values) if values else None


def _invoke_2(written: str) -> Found | None:
    values = _json(written)
    return parse_invoke_2(values) if values else None


def _comfy(written: str) -> Found | None:
    values = _json(written)
    return parse_graph(values) if values else None


def _any(written: str) -> Found | None:
    """A field that several programs use: JSON of one of them, or the infotext."""
    values = _json(written)
    if not values:
        return _infotext(written)
    summary = _json(text(values.get("extraMetadata")))
    if summary:
        return parse_summary(summary)
    return parse_invoke(values) if "positive_prompt" in values else parse_graph(values)


def _json(written: str) -> dict[str, Any] | None:
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _texts(picture: Image) -> dict[str, str]:
    """All texts in a file: PNG's chunks, EXIF's fields, comments."""
    picture.load()  # chunks may stand behind the pixels
    found = {str(key): value for key, value in picture.info.items() if isinstance(value, str)}
    comment = picture.info.get("comment")
    if isinstance(comment, bytes):
        found["Comment"] = comment.decode("utf-8", errors="replace")
    exif = picture.getexif()
    for tag, name in ((_DESCRIPTION, "ImageDescription"), (_MAKE, "Make"), (_MODEL, "Model")):
        written = exif.get(tag)
        if isinstance(written, str):
            # ComfyUI writes "prompt:{…}" and "workflow:{…}" into fields for cameras.
            keyword, colon, rest = written.partition(":")
            if colon and rest.lstrip().startswith("{"):
                found.setdefault(keyword.lower(), rest)
            else:
                found.setdefault(name, written)
    written = exif.get_ifd(_EXIF_FOLDER).get(_USER_COMMENT)
    if written:
        found["UserComment"] = user_comment(written)
    return found


def user_comment(written: bytes | str) -> str:
    """EXIF's UserComment: eight bytes that name the character code, then the text.

    The standard leaves UNICODE's byte order open; programs write UTF-16 big-endian mostly, little-endian or UTF-8 at
    times. The one whose text has the most ASCII is taken.
    """
    if isinstance(written, str):
        return written.strip("\0 ")
    code, rest = written[:8], written[8:]
    if code == b"UNICODE\0":
        decoded = [rest.decode(name, errors="replace") for name in ("utf-16-be", "utf-16-le", "utf-8")]
        return max(decoded, key=lambda t: sum(c.isascii() and c != "\0" for c in t) / max(len(t), 1)).strip("\0 ")
    known = code in (b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b"\0" * 8)
    return (rest if known else written).decode("utf-8", errors="replace").strip("\0 ")
