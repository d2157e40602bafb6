"""Find a font that has the letters of a text.

Plain letters are drawn with Pillow's own font, so that every machine draws the same. Other letters take a font of the
system: one of those that are known to hold many, else whichever has them.
"""

from __future__ import annotations

import logging
import os
import sys
import unicodedata
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import ImageFont

from ..errors import MissingPackage

_log = logging.getLogger("atelier")

_KNOWN = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "segoeui.ttf", "arial.ttf",
          "Arial Unicode.ttf", "NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc")
"""Tried first, in this order; all others only where these lack letters."""
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "FULLWIDTH")
"""How Unicode's names of such letters begin."""
_told: set[str] = set()
"""Scripts whose missing font was logged."""
_MOST_FONTS = 3000
"""Of one machine; opening one takes less than a millisecond."""


@lru_cache(maxsize=256)
def font_for(text: str) -> tuple[str, str]:
    """The font that has most letters of `text`, and the text as it can draw it.

    Letters that no font has lose their accents or become "?"; what to install is logged once for each script.

    Returns:
        A name for `load_font` ("" for Pillow's own), and the text.
    """
    best, lacking = "", set(text)
    for name in ("", *_KNOWN, *_others()):
        missing = _missing(name, text)
        if missing is not None and len(missing) < len(lacking):
            best, lacking = name, missing
        if not lacking:
            break
    for letter in sorted(lacking):
        script = unicodedata.name(letter, "").split(" ")[0]
        if _plain(letter) == "?" and script not in _told:
            _told.add(script)
            _tell_missing(letter, "Noto Sans CJK" if script in _CJK else "Noto Sans")
    return best, "".join(_plain(letter) if letter in lacking else letter for letter in text)


@lru_cache(maxsize=64)
def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font by its name or path ("" for Pillow's own) in letters of `size` pixels.

    Raises:
        OSError: there is no such font on this machine.
        MissingPackage: this Pillow draws no scalable letters.
    """
    font = ImageFont.truetype(name, size) if name else ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise MissingPackage("Pillow", "Writing below pictures (with FreeType)")
    return font


def _folders() -> list[Path]:
    """Where this system keeps its fonts."""
    home = Path.home()
    if sys.platform == "win32":
        local = Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local"))
        return [Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts", local / "Microsoft/Windows/Fonts"]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    own = os.environ.get("XDG_DATA_HOME") or home / ".local/share"
    return [*(Path(part) / "fonts" for part in shared.split(":") if part), Path(own) / "fonts", home / ".fonts"]


@lru_cache(maxsize=1)
def _others() -> tuple[str, ...]:
    """Paths of the system's fonts, the upright and regular ones first."""
    found = (path for folder in _folders() if folder.is_dir() for path in folder.rglob("*")
             if path.suffix.lower() in (".ttf", ".otf", ".ttc"))
    paths = sorted(islice(found, _MOST_FONTS), key=lambda path: ("regular" not in path.stem.lower(), path.name))
    return tuple(map(str, paths))


def _tell_missing(letter: str, family: str) -> None:
    package = "fonts-noto-cjk" if family.endswith("CJK") else "fonts-noto"
    hint = f' (Debian and Ubuntu: "apt-get install {package}")' if sys.platform.startswith("linux") else ""
    _log.warning("No font on this machine has the letter %s, so labels show ? in its place. Install a font that has "
                 "it, such as %s%s, and restart.", letter, family, hint)


def _plain(letter: str) -> str:
    """The letter without accents, or "?"."""
    base = "".join(c for c in unicodedata.normalize("NFKD", letter) if c.isascii())
    return base or "?"


def _missing(name: str, text: str) -> set[str] | None:
    """The letters of `text` that a font lacks; None if there is no such font on this system."""
    try:
        font = load_font(name, 16)
        nothing = _pixels(font, "\uffff")
        return {c for c in set(text) if c != " " and _pixels(font, c) == nothing}
    except (OSError, ValueError):  # a font that FreeType cannot read, or not at this size
        return None


def _pixels(font: ImageFont.FreeTypeFont, letter: str) -> bytes:
    mask: Any = font.getmask(letter)
    return bytes(mask)
