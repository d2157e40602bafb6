"""Find the prompt in a picture file, whichever program wrote it."""

from __future__ import annotations

from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import AtelierError
from ..decode import DECODER_ERRORS, UnreadablePicture, read_file
from ..png import MOST_TEXT, SIGNATURE, png_size, png_texts
from .comfy_graph import parse_graph
from .infotext import OWN_PROGRAM, parse_infotext, setting
from .invoke import parse_invoke, parse_invoke_2
from .json_forms import parse_drawn, parse_form, parse_novelai_fields
from .settings import PictureMetadata, parse_object
from .stealth import stealth_text
from .unread import why_unread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from PIL.Image import Exif

_USER_COMMENT, _EXIF_FOLDER, _DESCRIPTION, _MAKE, _MODEL = 0x9286, 0x8769, 0x010E, 0x010F, 0x0110
"""Tags of EXIF 2.32."""


def read_prompt(path: Path) -> PictureMetadata:
    """Prompt and settings of a PNG, JPEG or WebP file (or another that Pillow reads).

    Raises:
        UnreadablePicture: the file is no picture.
        AtelierError: it says nothing of how it was made, or nothing that can be read.
    """
    data = read_file(path)
    try:
        texts, left_out = _texts(data)
    except DECODER_ERRORS as error:
        raise UnreadablePicture(path, "it is no picture, or damaged") from error
    found = find_prompt(texts)
    if found is None or not found.positive:
        hidden = stealth_text(data)
        found = (_any(hidden) if hidden else None) or found
    if found is not None and not found.empty:
        return found
    if left_out:
        raise AtelierError(f"{path.name} holds metadata of more than {MOST_TEXT / 2**20:.0f} MB "
                           f"({', '.join(left_out)}), which is not read, and no other prompt.",
                           "Use a picture that carries less, or copy its prompt by hand.")
    what, hint = why_unread(texts)
    raise AtelierError(f"{path.name} {what}.", hint)


def find_prompt(texts: Mapping[str, str]) -> PictureMetadata | None:
    """The first description with a prompt among texts by keyword, else with settings; None if there is none.

    Keywords: `parameters` (A1111, Forge, CivitAI, SwarmUI, Fooocus, Save Titled), `atelier` (the shell),
    `invokeai_metadata`, `sd-metadata`, `prompt` (ComfyUI), `Comment` with `Description` (NovelAI); others are tried as
    each of these.
    """
    readers = {"parameters": _any, "atelier": _drawn, "UserComment": _any, "invokeai_metadata": _invoke,
               "sd-metadata": _invoke_2, "prompt": _comfy, "Description": _infotext, "ImageDescription": _any,
               "Comment": _any, "Model": _any}
    rest = parse_novelai_fields(texts)
    if rest is not None and rest.positive:
        return rest
    for keyword, read in readers.items():
        # Editors may put a byte order mark in front.
        written = texts.get(keyword, "")[:MOST_TEXT].lstrip("\ufeff")
        found = read(written) if written else None
        if found is not None and found.program == OWN_PROGRAM:
            # Save Titled knows the prompt and seed of each picture; steps, sampler and size are in the graph.
            graph = parse_object(texts.get("prompt", "")[:MOST_TEXT])
            found = found.completed(parse_graph(graph, setting(written, "Node")) if graph else None)
        if found is not None and found.positive:
            return found
        rest = rest if found is None or found.empty else rest or found
    return rest


def pixel_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture file as stored, whatever else is in it.

    Raises:
        UnreadablePicture: the file is no picture.
    """
    from io import BytesIO

    from PIL import Image

    data = read_file(path)
    try:
        if (size := png_size(data)) is not None:
            return size
        with Image.open(BytesIO(data)) as picture:
            return picture.size
    except DECODER_ERRORS as error:
        raise UnreadablePicture(path, "it is no picture, or damaged") from error


def _infotext(written: str) -> PictureMetadata | None:
    found = parse_infotext(written)
    # A text without any setting may be anything: a caption, a copyright.
    stated = found.steps is not None or found.seed is not None or found.negative or found.program == OWN_PROGRAM
    return found if stated else None


def _drawn(written: str) -> PictureMetadata | None:
    values = parse_object(written)
    return parse_drawn(values) if values else None


def _invoke(written: str) -> PictureMetadata | None:
    values = parse_object(written)
    return parse_invoke(values) if values else None


def _invoke_2(written: str) -> PictureMetadata | None:
    values = parse_object(written)
    return parse_invoke_2(values) if values else None


def _comfy(written: str) -> PictureMetadata | None:
    values = parse_object(written)
    return parse_graph(values) if values else None


def _any(written: str) -> PictureMetadata | None:
    """A field that several programs use: JSON of one of them, or the infotext."""
    values = parse_object(written)
    if not values:
        return _infotext(written)
    return parse_form(values) or parse_graph(values)


def _texts(data: bytes) -> tuple[dict[str, str], list[str]]:
    """All texts in a file (PNG's chunks, EXIF's fields, comments), and the keywords of those too long to read.

    Pixels are not decoded, so their damage does not matter.
    """
    from io import BytesIO

    from PIL import Image

    if data.startswith(SIGNATURE):
        png = png_texts(data)
        if not (png.has_pixels or png.texts or png.left_out):
            raise ValueError("the file ends before its pixels begin")
        # ImageMagick's way, from before PNG had a chunk for it: three lines, then hexadecimal digits.
        profile = "".join(png.texts.get("Raw profile type exif", "").split("\n")[3:])
        return _exif_texts(lambda: _parsed(png.exif or bytes.fromhex(profile))) | png.texts, png.left_out
    with Image.open(BytesIO(data)) as picture:
        found = {str(key): value for key, value in picture.info.items() if isinstance(value, str)}
        comment = picture.info.get("comment")
        if isinstance(comment, bytes):
            found["Comment"] = comment.decode("utf-8", errors="replace")
        return _exif_texts(picture.getexif) | found, []


def _parsed(data: bytes) -> Exif:
    from PIL import Image

    exif = Image.Exif()
    exif.load(data)
    return exif


def _exif_texts(parse: Callable[[], Exif]) -> dict[str, str]:
    """The texts in EXIF's fields; none where these are damaged, which says nothing about the rest of the file."""
    try:
        exif = parse()
        # Fooocus writes it into the main folder, where it does not belong.
        comment = exif.get_ifd(_EXIF_FOLDER).get(_USER_COMMENT) or exif.get(_USER_COMMENT)
    except DECODER_ERRORS:
        return {}
    found: dict[str, str] = {}
    for tag, name in ((_DESCRIPTION, "ImageDescription"), (_MAKE, "Make"), (_MODEL, "Model")):
        written = exif.get(tag)
        if isinstance(written, str):
            # ComfyUI writes "prompt:{…}" and "workflow:{…}" into fields for cameras.
            keyword, colon, rest = written.partition(":")
            if colon and rest.lstrip().startswith("{") and keyword.isalpha():
                found.setdefault(keyword.lower(), rest)
            else:
                found.setdefault(name, written)
    if isinstance(comment, str | bytes) and comment:
        found["UserComment"] = user_comment(comment)
    return found


def user_comment(written: bytes | str) -> str:
    """EXIF's UserComment: eight bytes that name the character code, then the text.

    The standard leaves UNICODE's byte order open; programs write UTF-16 big-endian mostly, little-endian or UTF-8 at
    times. A byte order mark decides; without one, that whose text has the most ASCII is taken.
    """
    if isinstance(written, str):
        return written.strip("\0 \ufeff")
    code, rest = written[:8], written[8:]
    if code == b"UNICODE\0":
        names = ("utf-16",) if rest.startswith((BOM_UTF16_BE, BOM_UTF16_LE)) else ("utf-16-be", "utf-16-le", "utf-8")
        decoded = [rest.decode(name, errors="replace") for name in names]
        best = max(decoded, key=lambda t: sum(c.isascii() and c != "\0" for c in t) / max(len(t), 1))
        return best.strip("\0 \ufeff")
    known = code in (b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b"\0" * 8)
    return (rest if known else written).decode("utf-8", errors="replace").strip("\0 \ufeff")
