"""Save pictures under their titles, with sidecars that say how they were made."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import AtelierError, NameTaken
from ..files import RESERVED, atomic_file, write_text
from ..pictures.metadata.infotext import OWN_PROGRAM
from ..pictures.metadata.infotext_file import quoted

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

    from ..pictures.metadata.settings import PictureMetadata

LONGEST = 120
"""Bytes of a name in UTF-8. File systems take 255; Windows counts the whole path against 260."""
UNTITLED = "untitled"

_FORBIDDEN = re.compile(r'[<>:"/\\|?*]+')
_SURROGATES = re.compile("[\ud800-\udfff]")
_ENDINGS = (".png", ".txt", ".json")
_JOINERS = "\u200c\u200d"
"""Invisible characters that join emoji and letters of some scripts."""


@dataclass(frozen=True, kw_only=True)
class Details:
    """How a picture was made, where known; sidecars omit empty fields."""

    title: str = ""
    prompt: str = ""
    negative: str = ""
    seed: int | None = None
    model: str = ""
    score: float | None = None
    scored_by: str = ""
    """Model and definition of the score, needed to interpret it."""


@dataclass(frozen=True)
class Saved:
    """The files of one saved picture."""

    picture: Path
    text: Path
    details: Path


def safe_name(title: str) -> str:
    """A file name without ending that every system takes, as close to the title as can be.

    Letters of all scripts are kept, composed (NFC). Characters that a path or Windows forbids become dashes; control
    and invisible formatting characters are removed; spaces are merged; dots and spaces are stripped from the ends. A
    Windows device name gets a trailing underscore. A long name is cut between characters; an empty one becomes
    "untitled".
    """
    text = unicodedata.normalize("NFC", title)
    text = "".join(" " if c.isspace() else c for c in text
                   if c.isspace() or c in _JOINERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Cn", "Co"))
    text = " ".join(_FORBIDDEN.sub("-", text).split()).strip(". -")
    text = _cut(text, LONGEST).rstrip(". -") or UNTITLED
    stem, dot, rest = text.partition(".")
    # Windows also reserves COM¹ and the like: NFKC turns those digits into plain ones.
    if unicodedata.normalize("NFKC", stem).rstrip().upper() in {*RESERVED, "CONIN$", "CONOUT$"}:
        text = f"{stem.rstrip()}_{dot}{rest}"
    return text


def free_stem(folder: Path, name: str, but: Collection[str] = ()) -> str:
    """`name`, or the first of "name (2)", "name (3)", … that no picture or sidecar in `folder` has.

    Case is ignored, as on Windows and macOS.

    Args:
        but: Further stems that are taken.
    """
    taken = {_folded(entry.name) for entry in os.scandir(folder)} if folder.is_dir() else set()
    stem, number = name, 1
    while stem in but or any(_folded(stem + ending) in taken for ending in _ENDINGS):
        number += 1
        stem = f"{name} ({number})"
    return stem


def save_titled(picture: Image, folder: Path, details: Details, *, metadata: Mapping[str, str] | None = None,
                extra: Mapping[str, Any] | None = None) -> Saved:
    """Save a picture as `<title>.png`, its prompts as `<title>.txt` and all details as `<title>.json`.

    Never overwrites a file. The picture is written last, so that it never appears without its sidecars; if it cannot
    be written, they are removed.

    Args:
        folder: Created if it does not exist.
        metadata: Text chunks of the PNG file, by keyword.
        extra: Further entries of the JSON file, in JSON types.

    Raises:
        AtelierError: the disk is full, or the folder is a file or cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    if folder.exists() and not folder.is_dir():
        raise AtelierError(f"{folder} is a file, not a folder.", "Choose another folder to save to.")
    info = PngInfo()
    for keyword, text in (metadata or {}).items():
        info.add_text(keyword, _whole(text))
    taken: list[str] = []
    while True:
        stem = free_stem(folder, safe_name(details.title), taken)
        try:
            return _save_as(Saved(*(folder / (stem + ending) for ending in _ENDINGS)), picture, details, info,
                            extra or {})
        except NameTaken:  # by another process, meanwhile
            taken.append(stem)


def _save_as(saved: Saved, picture: Image, details: Details, info: PngInfo, extra: Mapping[str, Any]) -> Saved:
    about = {**_known(details), "file": saved.picture.name, "width": picture.width, "height": picture.height,
             **extra}
    with ExitStack() as written:
        for path, text in ((saved.text, infotext(details)),
                           (saved.details, json.dumps(about, indent=2, ensure_ascii=False))):
            write_text(path, _whole(text) + "\n", replace=False)
            written.callback(path.unlink, missing_ok=True)
        with atomic_file(saved.picture, replace=False) as part:
            picture.save(part, format="PNG", pnginfo=info)
        written.pop_all()
    return saved


def infotext(details: Details, drawn: Mapping[str, Any] | None = None, saved: Mapping[str, Any] | None = None) -> str:
    """Prompt, negative prompt and one line of settings: the text format that AUTOMATIC1111's web UI made common.

    Args:
        drawn: Settings to be named first; "" and None are left out.
        saved: Settings to be named last.
    """
    settings: dict[str, Any] = {
        **(drawn or {}),
        "Seed": details.seed if details.seed is not None else "", "Model": details.model, "Title": details.title,
        "CLIP score": f"{details.score:.4f}" if details.score is not None else "", "Scored by": details.scored_by,
        **(saved or {}),
    }
    line = ", ".join(f"{name}: {quoted(str(value))}" for name, value in settings.items() if value not in ("", None))
    negative = f"Negative prompt: {details.negative}" if details.negative else ""
    return "\n".join(part for part in (details.prompt, negative, line) if part)


def parameters(details: Details, made: PictureMetadata | None = None, node: str = "") -> dict[str, str]:
    """The text chunk in which programs look for an infotext, for the `metadata` of `save_titled`.

    Args:
        details: What is known of this picture.
        made: What the graph says of all that are saved with it, for what `details` leaves out.
        node: Id of the node that saves, by which the graph is read again.
    """
    drawn: dict[str, Any] = {}
    if made is not None:
        details = replace(details, prompt=details.prompt or made.positive, negative=details.negative or made.negative,
                          seed=made.seed if details.seed is None else details.seed, model=details.model or made.model)
        drawn = {"Steps": made.steps, "Sampler": made.sampler, "Schedule type": made.scheduler,
                 "CFG scale": None if made.cfg is None else f"{made.cfg:.10g}"}
    return {"parameters": infotext(details, drawn, {"Node": node, "Version": f"{OWN_PROGRAM} {__version__}"})}


def _known(details: Details) -> dict[str, Any]:
    return {name: value for name, value in asdict(details).items() if value not in ("", None)}


def _whole(text: str) -> str:
    """`text` without unpaired surrogates, which JSON can hold and UTF-8 files cannot."""
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _cut(text: str, size: int) -> str:
    """At most `size` bytes in UTF-8, without splitting a character or a letter from its combining marks."""
    end = len(text[:size])  # a character has at least one byte
    while end and (len(text[:end].encode()) > size or _joined(text, end)):
        end -= 1
    return text[:end]


def _joined(text: str, index: int) -> bool:
    """Whether the characters before and at `index` are drawn as one."""
    return index < len(text) and (text[index] in _JOINERS or text[index - 1] in _JOINERS
                                  or unicodedata.category(text[index]).startswith("M"))
