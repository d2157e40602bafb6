"""Folders of pictures that a graph may name: their list, and new files in them from the browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import folder_paths

from ...atelier.dataset.scan import PICTURE_ENDINGS
from ...atelier.dataset.sidecar import SIDECAR_ENDINGS
from ...atelier.errors import AtelierError, NameTaken
from ...atelier.files import atomic_file, file_name, folder_name
from .allowed import check_added, listed_folders, typed_path

MOST = 500
"""Folders that are listed at most; those nearest to the top come first."""
_DEEPEST = 3
"""Levels below ComfyUI's input folder, or below one that the owner lists, that are searched."""


@dataclass(frozen=True)
class PictureFolder:
    """A folder that holds pictures."""

    name: str
    """As the widget of a node takes it: relative to ComfyUI's input folder, or the full path."""
    pictures: int


def picture_folders() -> list[PictureFolder]:
    """Folders with pictures in ComfyUI's input folder, then those that the server's owner lists."""
    home = Path(folder_paths.get_input_directory())
    found: list[PictureFolder] = []
    for root in (home, *map(Path, listed_folders())):
        for folder, pictures in _with_pictures(root.expanduser()):
            if folder == home:  # single pictures of other nodes, which no widget names
                continue
            name = folder.relative_to(home) if root == home else folder
            found.append(PictureFolder(name.as_posix(), pictures))
            if len(found) == MOST:
                return found
    return found


def add_file(folder: str, name: str, content: bytes) -> Path:
    """Write a picture or caption file into a folder of ComfyUI's input folder or of a listed one, which is made if need
    be.

    A file of the same name and content is left as it is.

    Args:
        folder: As the widget of a node takes it: its path below the input folder, or the full path.
        name: Of the file.
        content: Of the file. Whether a picture can be read is found when the folder is.

    Raises:
        AtelierError: the folder or the name cannot be, the folder or a link leads out of where files may be added, the
            file is neither a picture nor a caption, or another file has the name.
    """
    typed = typed_path(folder)
    inside = folder.strip() if typed.is_absolute() else folder_name(folder)
    if not inside:
        raise AtelierError("There is no name for the folder.", "Type one into folder, such as my-pictures.")
    ending = Path(name).suffix.lower()
    if ending not in (*PICTURE_ENDINGS, *SIDECAR_ENDINGS):
        raise AtelierError(f"{name} is neither a picture nor a caption file.",
                           f"Choose files that end with {', '.join(sorted((*PICTURE_ENDINGS, *SIDECAR_ENDINGS)))}.")
    if "/" in file_name(name):
        raise AtelierError(f"{name!r} is a path and not the name of a file.", "Upload files, and not a folder.")
    home = typed if typed.is_absolute() else Path(folder_paths.get_input_directory()) / inside
    path = check_added(home / file_name(name))
    try:
        with atomic_file(path, replace=False) as part:
            part.write_bytes(content)
    except NameTaken:
        if path.read_bytes() != content:
            raise AtelierError(f"{inside} has another file called {name}.",
                               "Rename one of them, or choose another folder.") from None
    return path


def _with_pictures(root: Path) -> Iterator[tuple[Path, int]]:
    """Folders with pictures, and how many; nearest first, then by name."""
    level = [root]
    for _ in range(_DEEPEST + 1):
        below: list[Path] = []
        for folder in level:
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name.lower())
            except OSError:  # gone meanwhile, or not ours to read
                continue
            pictures = sum(Path(entry.name).suffix.lower() in PICTURE_ENDINGS for entry in entries
                           if not entry.name.startswith("."))
            if pictures:
                yield folder, pictures
            below += [folder / entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
        level = below
