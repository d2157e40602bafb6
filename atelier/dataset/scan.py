"""Which files of a folder are pictures, in which order, with which masks and repeats."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from .tree import files_below

PICTURE_ENDINGS = frozenset((".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"))
MASK_SUFFIX = "-mask"
"""`cat-mask.png` is the loss mask of `cat.jpg`."""

_REPEATS = re.compile(r"([0-9]+)_(.*)")
"""kohya's folder names: `10_red fox` holds pictures to be used ten times an epoch."""


@dataclass(frozen=True)
class PictureFile:
    """A picture file and what its place in the folder says about it."""

    path: Path
    folder: str
    """Name of the folder it lies in, without a leading `N_`."""
    repeats: int
    """From an `N_name` folder below the one that was searched; 1 elsewhere. 0 leaves the picture out, as kohya's
    trainer does. The `N_` of the searched folder itself does not count: who chooses that one says repeats beside it."""
    mask: Path | None


def find_pictures(folder: Path, recursive: bool, masks: Path | None = None,
                  leave_out: Collection[Path] = ()) -> list[PictureFile]:
    """The pictures of `folder` in natural order.

    A picture's mask is the file of the same relative path in `masks` (any picture ending, `-mask` allowed), else
    `<name>-mask.<ending>` beside it. Such files are not pictures themselves. Names that begin with a dot are ignored,
    endings match in any case.

    Args:
        folder: Where to look.
        recursive: Also look below it, through links to folders too, and honour the repeats of `N_name` folders there.
        masks: A folder of masks with the tree of `folder`.
        leave_out: Folders that are not entered.
    """
    closed = {path.resolve() for path in (*leave_out, *((masks,) if masks else ()))}
    files = sorted(_walk(folder, recursive, closed), key=lambda path: natural_key(path.relative_to(folder)))
    by_name = {_name_key(path.relative_to(folder)): path for path in files}
    masked = {_name_key(path.relative_to(masks), drop_mask=True): path
              for path in _walk(masks, recursive, set())} if masks else {}
    found = []
    for path in files:
        relative = path.relative_to(folder)
        key = _name_key(relative)
        if key.endswith(MASK_SUFFIX) and key.removesuffix(MASK_SUFFIX) in by_name:
            continue
        name, repeats = _folder(folder, relative)
        mask = masked.get(key) or by_name.get(key + MASK_SUFFIX)
        found.append(PictureFile(path, name, repeats, mask))
    return found


def natural_key(path: PurePath) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Sort key by which `b2` comes before `B10`, the same on every system whatever order it lists files in."""
    # macOS may hand out decomposed letters where others give composed ones.
    text = unicodedata.normalize("NFC", path.as_posix())
    parts = re.split(r"([0-9]+)", text.casefold())
    return tuple((0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts), text


def _walk(folder: Path, recursive: bool, closed: set[Path]) -> Iterator[Path]:
    def enter(path: Path) -> bool:
        return recursive and not path.name.startswith(".") and path.resolve() not in closed

    for path in files_below(folder, enter):
        if not path.name.startswith(".") and path.suffix.lower() in PICTURE_ENDINGS:
            yield path


def _name_key(relative: PurePath, drop_mask: bool = False) -> str:
    """Relative path without its ending, comparable across systems."""
    key = unicodedata.normalize("NFC", relative.with_suffix("").as_posix()).casefold()
    return key.removesuffix(MASK_SUFFIX) if drop_mask else key


def _folder(root: Path, relative: PurePath) -> tuple[str, int]:
    """Name of the picture's folder, and the repeats of the nearest `N_name` folder above it, below `root`."""
    own = relative.parent.name or root.resolve().name
    match = _REPEATS.fullmatch(own)
    name = match[2] if match else own
    for above in reversed(relative.parent.parts):
        if match := _REPEATS.fullmatch(above):
            return name, int(match[1])
    return name, 1
