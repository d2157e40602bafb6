"""Write the demo's model, CLIP and pictures into ComfyUI's folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..progress import Progress
from .clip import FOLDER_NAME, expand_clip
from .expand import FILE_NAME, expand
from .sets import pencil_pictures, plain_pictures

PICTURES = "atelier-demo"
"""Folder below `input` with the demo's pictures."""
KINDS = ("pencil", "plain", "fillers")
"""Its folders: sketches to learn from, pictures in the base model's own look, and fillers for a grid."""
SKETCHES, PLAIN, FILLERS = 64, 24, 24
"""How many pictures of each kind."""


@dataclass(frozen=True, kw_only=True)
class DemoFolders:
    """ComfyUI's folders that take the demo's files, and the places of these files in them."""

    checkpoints: Path
    clips: Path
    """Folder of CLIP models for scoring."""
    input: Path

    @classmethod
    def below(cls, base: Path) -> DemoFolders:
        """The folders as ComfyUI has them below its base folder, unless it was configured otherwise."""
        return cls(checkpoints=base / "models" / "checkpoints", clips=base / "models" / "clip_score",
                   input=base / "input")

    def files(self) -> list[Path]:
        """Checkpoint, CLIP folder, and the folders of pencil sketches, plain pictures and fillers."""
        pictures = self.input / PICTURES
        return [self.checkpoints / FILE_NAME, self.clips / FOLDER_NAME, *(pictures / name for name in KINDS)]

    def complete(self) -> bool:
        """Whether everything is there; no file is read."""
        checkpoint, *folders = self.files()
        return checkpoint.is_file() and all(folder.is_dir() for folder in folders)


def fill_folders(folders: DemoFolders, progress: Progress | None = None) -> list[Path]:
    """Write what the template "Try it without downloads" needs, unless it exists.

    Args:
        folders: Where to.
        progress: Reports progress; may interrupt.

    Returns:
        `folders.files()`.

    Raises:
        AtelierError: an asset is damaged or the disk is full.
    """
    checkpoint, clip, *_ = folders.files()
    return [expand(checkpoint, progress), expand_clip(clip, progress), *picture_folders(folders.input / PICTURES)]


def picture_folders(folder: Path) -> tuple[Path, Path, Path]:
    """Folders of pencil sketches, plain pictures and fillers below `folder`; drawn unless they exist."""
    pencil, plain, fillers = (folder / name for name in KINDS)
    if not pencil.is_dir():
        pencil_pictures(pencil, SKETCHES)
    if not plain.is_dir():
        plain_pictures(plain, PLAIN)
    if not fillers.is_dir():
        plain_pictures(fillers, FILLERS, seed=13)
    return pencil, plain, fillers
