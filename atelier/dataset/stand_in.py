"""Captions for a folder of pictures without any caption file: the trigger word, or the folder's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .metadata_table import NAMES
from .scan import PictureFile
from .sidecar import SIDECAR_ENDINGS


def has_caption_files(root: Path, found: Sequence[PictureFile]) -> bool:
    """Whether any text file or table lies beside the pictures or in `root`, whatever it says of them: a folder in which
    somebody wrote captions is not one without."""
    folders = {root, *(picture.path.parent for picture in found)}
    return any(file.suffix.lower() in SIDECAR_ENDINGS or file.name in NAMES
               for folder in folders for file in folder.iterdir())


def stand_in_captions(root: Path, found: Sequence[PictureFile], trigger: str) -> tuple[list[tuple[str, ...]], str]:
    """A caption for each picture, and a sentence that says what was assumed.

    Args:
        root: The folder that was searched.
        found: Its pictures.
        trigger: The trigger word; where there is none, the name of a picture's folder is its caption.
    """
    captions = [(trigger or picture.folder.replace("_", " ").strip(),) for picture in found]
    source = f"the trigger {trigger!r}" if trigger else f"its folder's name, such as {captions[0][0]!r}"
    return captions, (f"There are no caption files in {root}: the caption of each picture is {source}. Captions that "
                      "say what else is seen keep that apart from what is learnt.")
