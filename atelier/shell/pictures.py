"""Read the picture arguments of verbs: files and folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AtelierError

if TYPE_CHECKING:
    from PIL.Image import Image


def picture_files(given: Sequence[Path]) -> list[Path]:
    """The files among `given`, and those in the folders among them, sorted by name.

    Raises:
        AtelierError: a path does not exist, or no picture is among them.
    """
    from ..dataset.scan import find_pictures

    files: list[Path] = []
    for path in given:
        if path.is_dir():
            files += sorted(picture.path for picture in find_pictures(path, recursive=False))
        elif path.is_file():
            files.append(path)
        else:
            raise AtelierError(f"{path} does not exist.", "Give pictures or folders of pictures.")
    if not files:
        raise AtelierError(f"There are no pictures in {', '.join(map(str, given))}.",
                           "Give pictures or folders of pictures.")
    return files


def open_pictures(files: Sequence[Path]) -> list[Image]:
    """The files as upright RGB pictures.

    Raises:
        AtelierError: some cannot be read; the message names them all.
    """
    from ..pictures.decode import UnreadablePicture, read_picture

    pictures, faults = [], []
    for file in files:
        try:
            pictures.append(read_picture(file))
        except UnreadablePicture as error:
            faults.append(f"{file.name} ({error.why})")
    if faults:
        raise AtelierError(f"{len(faults)} pictures cannot be read: {'; '.join(faults)}.", "Leave them out.")
    return pictures
