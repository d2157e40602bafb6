"""All files below a folder, linked folders included."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def files_below(folder: Path, enter: Callable[[Path], bool] = lambda path: True) -> Iterator[Path]:
    """Every file of `folder` and of the folders below it, in no order; paths begin with `folder` as it was given.

    Links to folders are followed, but no folder is visited twice: of several ways to one, that without links counts,
    and a link to a folder around it, which would never end, leads nowhere.

    Args:
        folder: Where to begin.
        enter: Asked of every folder below, whether its files count.
    """
    visited: set[Path] = set()
    waiting = [folder]
    while waiting:
        start = waiting.pop(0)
        if start.resolve() in visited:
            continue
        for place, names, files in os.walk(start):
            here = Path(place)
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
