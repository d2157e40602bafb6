"""Captions in files beside the pictures: which pictures have one, and new ones."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from ..dataset.metadata_table import MetadataTables
from ..dataset.sidecar import Sidecars, read_sidecar
from ..errors import AtelierError, NameTaken
from ..files import write_text

ENDING = ".txt"


def written_captions(pictures: Sequence[Path], root: Path | None = None) -> list[str]:
    """The caption that each picture has in a text file beside it or in a table; "" where there is none.

    Args:
        pictures: the pictures.
        root: the topmost folder with a table; None is each picture's own.

    Raises:
        AtelierError: a file is not UTF-8 text.
    """
    sidecars = Sidecars()
    tables = {folder: MetadataTables(root or folder) for folder in {picture.parent for picture in pictures}}
    found: list[str] = []
    for picture in pictures:
        texts = [text for path in sidecars.find(picture) for text in read_sidecar(path, by_lines=False)]
        found.append(next(iter((*texts, *tables[picture.parent].find(picture))), ""))
    return found


def check_own_files(pictures: Sequence[Path]) -> None:
    """Raise if two pictures would share a caption file.

    Raises:
        AtelierError: `a.png` and `a.jpg` lie in one folder.
    """
    owners: dict[tuple[Path, str], Path] = {}
    for picture in pictures:
        key = picture.parent, unicodedata.normalize("NFC", picture.stem).casefold()
        other = owners.setdefault(key, picture)
        if other != picture:
            raise AtelierError(f"{other.name} and {picture.name} in {picture.parent} would share the caption file "
                               f"{picture.stem}{ENDING}.", "Rename one of the pictures.")


def write_caption(picture: Path, text: str, replace: bool) -> bool:
    """Write the caption file of `picture`, whole or not at all.

    Args:
        picture: the picture.
        text: its caption.
        replace: whether to write over a caption; an empty file never counts as one.

    Returns:
        False if a caption appeared meanwhile, which stays.
    """
    path = picture.with_suffix(ENDING)
    try:
        write_text(path, text + "\n", replace=replace or _is_empty(path))
    except NameTaken:
        return False
    return True


def _is_empty(path: Path) -> bool:
    return path.is_file() and not read_sidecar(path, by_lines=False)
