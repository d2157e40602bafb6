"""List all files below a folder, following links to folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def files_below(folder: Path, enter: Callable[[Path], bool] = lambda path: True) -> Iterator[Path]:
    """Every file in `folder` and its sub-folders, unordered; paths begin with `folder` as given.

    Links to folders are followed, but no folder is visited twice: a path without links takes precedence, and a link to
    a parent folder, which would never end, is ignored.

    Args:
        folder: Folder to start from.
        enter: Whether to enter a sub-folder.
    """
    visited: set[Path] = set()
    waiting = [folder]
    while waiting:
        start = waiting.pop(0)
        if start.resolve() in visited:
            continue
        for root, names, files in os.walk(start):
            here = Path(root)
            real = here.resolve()
            visited.add(real)
            inside, linked = [], []
            for name in sorted(filter(lambda name, here=here: enter(here / name), names)):
                target = (here / name).resolve()
                if target == real / name:
                    inside.append(name)
                elif not real.is_relative_to(target):
                    linked.append(here / name)
            names[:] = inside
            waiting += linked
            yield from (here / name for name in files)
