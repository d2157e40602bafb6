"""Find the pictures of a folder in natural order, with their masks and repeats."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from .tree import files_below

PICTURE_ENDINGS = frozenset((".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif",
                             ".heic", ".heif"))
MASK_SUFFIXES = ("-mask", "-masklabel")
"""`cat-mask.png` is the loss mask of `cat.jpg`; OneTrainer calls it `cat-masklabel.png`."""

_log = logging.getLogger("atelier")
_REPEATS = re.compile(r"([0-9]+)_(.*)")
"""kohya's folder names: `10_red fox` holds pictures to be used ten times an epoch."""
_MOST_DIGITS = 4
_YEARS = range(1900, 2101)
"""A number like these, or of more digits, is a date in a folder's name."""


@dataclass(frozen=True)
class PictureFile:
    """A picture file with the repeats and mask that its folder gives it."""

    path: Path
    folder: str
    """Name of its folder, without the `N_` of repeats."""
    repeats: int
    """From an `N_name` folder below the searched one; 1 elsewhere. 0 excludes the picture, as in kohya's trainer.
    The `N_` of the searched folder itself does not count: whoever chooses that folder sets `repeats` directly."""
    mask: Path | None


def find_pictures(folder: Path, recursive: bool, masks: Path | None = None,
                  leave_out: Collection[Path] = ()) -> list[PictureFile]:
    """The pictures of `folder` in natural order.

    A picture's mask is the file of the same relative path in `masks` (any picture ending, `-mask` and `-masklabel`
    allowed), else `<name>-mask.<ending>` or `<name>-masklabel.<ending>` beside it. Masks are not listed as pictures.
    Names that begin with a dot are ignored, endings match in any case.

    Args:
        folder: Folder to search.
        recursive: Also search its sub-folders, linked ones included, and honour the repeats of `N_name` folders there.
        masks: A folder of masks with the same sub-folders as `folder`.
        leave_out: Folders to skip.
    """
    closed = {path.resolve() for path in (*leave_out, *((masks,) if masks else ()))}
    files = sorted(_walk(folder, recursive, closed), key=lambda path: natural_key(path.relative_to(folder)))
    by_name = {_name_key(path.relative_to(folder)): path for path in files}
    masked = {_without_suffix(_name_key(path.relative_to(masks))): path
              for path in _walk(masks, recursive, set())} if masks else {}
    pictures, dates = [], set()
    for path in files:
        relative = path.relative_to(folder)
        key = _name_key(relative)
        if (of := _without_suffix(key)) != key and of in by_name:
            continue
        name, repeats = _folder(folder, relative)
        mask = masked.get(key) or next((by_name[key + end] for end in MASK_SUFFIXES if key + end in by_name), None)
        pictures.append(PictureFile(path, name, repeats, mask))
        dates.update(part for part in relative.parent.parts if _is_date(part))
    for part in sorted(dates):
        _log.warning("The number of the folder %s is taken as a part of its name, not as repeats.", part)
    return pictures


def natural_key(path: PurePath) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key that puts `b2` before `B10`, independent of the system's own listing order."""
    # macOS may list decomposed letters where other systems list composed ones.
    text = unicodedata.normalize("NFC", path.as_posix())
    parts = re.split(r"([0-9]+)", text.casefold())
    return tuple((0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts), text


def _walk(folder: Path, recursive: bool, closed: set[Path]) -> Iterator[Path]:
    def enter(path: Path) -> bool:
        return recursive and not path.name.startswith(".") and path.resolve() not in closed

    for path in files_below(folder, enter):
        if not path.name.startswith(".") and path.suffix.lower() in PICTURE_ENDINGS:
            yield path


def _name_key(relative: PurePath) -> str:
    """Relative path without its ending, comparable across systems."""
    return unicodedata.normalize("NFC", relative.with_suffix("").as_posix()).casefold()


def _without_suffix(key: str) -> str:
    """A name's key without the end that marks a mask."""
    end = next((end for end in MASK_SUFFIXES if key.endswith(end)), "")
    return key.removesuffix(end)


def _folder(root: Path, relative: PurePath) -> tuple[str, int]:
    """Name of the picture's folder, and the repeats of the nearest `N_name` folder above it, below `root`."""
    own = relative.parent.name or root.resolve().name
    match = _repeats(own)
    name = match[2] if match else own
    for above in reversed(relative.parent.parts):
        if match := _repeats(above):
            return name, int(match[1])
    return name, 1


def _repeats(name: str) -> re.Match[str] | None:
    """The parts of a folder's name that begins with plausible repeats: their number, and the rest."""
    match = _REPEATS.fullmatch(name)
    return None if match is None or _is_date(name) else match


def _is_date(name: str) -> bool:
    match = _REPEATS.fullmatch(name)
    return match is not None and (len(match[1]) > _MOST_DIGITS or int(match[1]) in _YEARS)
