"""Write the demo's model, CLIP and pictures into ComfyUI's folders."""

from __future__ import annotations

from pathlib import Path

from ..progress import Progress
from .clip import FOLDER_NAME, expand_clip
from .expand import FILE_NAME, expand
from .sets import pencil_pictures, plain_pictures

PICTURES = "atelier-demo"
"""Folder below `input` with the demo's pictures."""
SKETCHES, PLAIN, FILLERS = 64, 24, 24
"""How many pictures of each kind."""


def fill_folders(base: Path, progress: Progress | None = None) -> list[Path]:
    """Write what the template "Try it without downloads" needs, unless it exists.

    Args:
        base: ComfyUI's base folder, the one with `models` and `input` in it.
        progress: Reports progress; may interrupt.

    Returns:
        Checkpoint, CLIP folder, and the folders of pencil sketches, plain pictures and fillers.

    Raises:
        AtelierError: an asset is damaged or the disk is full.
    """
    pictures = base / "input" / PICTURES
    return [expand(base / "models" / "checkpoints" / FILE_NAME, progress),
            expand_clip(base / "models" / "clip_score" / FOLDER_NAME, progress), *picture_folders(pictures)]


def picture_folders(folder: Path) -> tuple[Path, Path, Path]:
    """Folders of pencil sketches, plain pictures and fillers below `folder`; drawn unless they exist."""
    pencil, plain, fillers = folder / "pencil", folder / "plain", folder / "fillers"
    if not pencil.is_dir():
        pencil_pictures(pencil, SKETCHES)
    if not plain.is_dir():
        plain_pictures(plain, PLAIN)
    if not fillers.is_dir():
        plain_pictures(fillers, FILLERS, seed=13)
    return pencil, plain, fillers
