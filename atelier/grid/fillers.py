"""Draw distinct pictures for the other cells of a grid."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..dataset.scan import find_pictures
from ..errors import AtelierError
from ..pictures.decode import UnreadablePicture, read_picture
from ..progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger("atelier")


@dataclass(frozen=True)
class Filler:
    """A filler picture and its file."""

    path: Path
    picture: Image
    """Upright, RGB."""


def fillers_from_folder(folder: Path, count: int, seed: int, *, allow_repeats: bool = False,
                        progress: Progress | None = None) -> list[Filler]:
    """`count` pictures of a folder and the folders below it. See `draw_fillers`."""
    paths = [picture.path for picture in find_pictures(folder, recursive=True)]
    return draw_fillers(paths, count, seed, allow_repeats=allow_repeats, progress=progress)


def draw_fillers(paths: Sequence[Path], count: int, seed: int, *, allow_repeats: bool = False,
                 progress: Progress | None = None) -> list[Filler]:
    """`count` different pictures in an order drawn from the seed.

    Copies of a file count as one picture. Unreadable files are skipped with a warning in the log. The
    same paths in the same order give the same fillers on every machine.

    Args:
        allow_repeats: Once all pictures are used, draw from all of them again.

    Raises:
        AtelierError: `count` is below 1, or there are too few pictures.
    """
    if count < 1:
        raise AtelierError(f"count is {count}.", "Choose 1 or more.")
    progress = progress or Progress()
    progress.phase("reading", count)
    order = list(paths)
    rng = random.Random(seed)
    rng.shuffle(order)
    distinct: list[Filler] = []
    for filler in _readable(order):
        progress.check()
        distinct.append(filler)
        progress.advance(len(distinct))
        if len(distinct) == count:
            return distinct
    if not distinct or not allow_repeats:
        raise AtelierError(f"{count} fillers are wanted, and there are {len(distinct)} different pictures among "
                           f"{len(paths)} files.", "Give more pictures, ask for fewer, or allow repeats.")
    repeated: list[Filler] = []
    while len(distinct) + len(repeated) < count:
        repeated += rng.sample(distinct, len(distinct))
    return [*distinct, *repeated][:count]


def _readable(paths: Sequence[Path]) -> Iterator[Filler]:
    """Yield the readable files without duplicates, opened lazily: few of thousands are ever read."""
    seen: set[bytes] = set()
    for path in paths:
        try:
            picture = read_picture(path)
        except (UnreadablePicture, OSError) as error:
            _log.warning("No filler: %s", error)
            continue
        digest = hashlib.sha256(path.read_bytes()).digest()
        if digest not in seen:
            seen.add(digest)
            yield Filler(path, picture)
