"""Where files and folders lie while they are being written, and the removal of those that nobody will finish.

A process that is killed cannot tidy up. So each unfinished file names the machine and the process that writes it, and
the next process that writes to the same folder removes what belongs to none that is alive.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import secrets
import shutil
import time
import zlib
from functools import cache
from pathlib import Path
from socket import gethostname

import psutil

log = logging.getLogger("atelier")

PART_SUFFIX = ".part"
"""Ending of unfinished files and folders; what carries it can be deleted when nobody is writing it."""

ASIDE_SUFFIX = ".old"
"""Ending of a folder that was moved away for its successor."""

UNTOUCHED = 24 * 3600
"""Seconds without a change after which a file counts as given up whoever wrote it: another machine, or another process
that has got the number of the first."""

_START = 24
"""So many characters of a name are kept, which leaves room for the rest in any file system."""


def _numbering() -> str:
    """Where a number means one process: a machine, and on Linux a container, which may go by its machine's name."""
    try:
        container = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        container = ""
    return f"{gethostname()} {container}"


@cache
def _machine() -> str:
    return f"{zlib.crc32(_numbering().encode()) & 0xFFFF:04x}"


_PROCESS = secrets.token_hex(3)  # beside the number, as in a container every process may have the same
_COUNT = itertools.count()
_NAME = re.compile(rf"\.(?P<start>.+)-(?P<machine>[0-9a-f]{{4}})-(?P<pid>[0-9]+)-(?P<process>[0-9a-f]{{6}})-[0-9]+"
                   rf"(?P<suffix>{re.escape(PART_SUFFIX)}|{re.escape(ASIDE_SUFFIX)})", re.DOTALL)


def temp_path(path: Path, suffix: str = PART_SUFFIX) -> Path:
    """A free path in the folder of `path`, so that a rename between them stays within one file system.

    The first time a process asks for one in a folder, what killed processes left there is removed.
    """
    _sweep(path.parent)
    return path.parent / f".{path.name[:_START]}-{_machine()}-{os.getpid()}-{_PROCESS}-{next(_COUNT)}{suffix}"


def is_part(name: str) -> bool:
    """Whether a file or folder of this name is being written, or was and never will be finished."""
    match = _NAME.fullmatch(name)
    return match is not None and match["suffix"] == PART_SUFFIX


@cache
def _sweep(folder: Path) -> None:
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return  # whoever writes there will say what is wrong
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None or not _given_up(match, folder / name):
            continue
        if match["suffix"] == ASIDE_SUFFIX and not _has_successor(match["start"], names):
            continue  # killed between two renames: this is the only copy
        log.info("Removing %s, left unfinished by a process that was killed.", folder / name)
        _remove(folder / name)


def _has_successor(start: str, names: list[str]) -> bool:
    return start in names if len(start) < _START else any(name.startswith(start) for name in names)


def _given_up(match: re.Match[str], path: Path) -> bool:
    if match["machine"] == _machine():
        if int(match["pid"]) == os.getpid():
            return match["process"] != _PROCESS
        if not psutil.pid_exists(int(match["pid"])):
            return True
    try:
        return time.time() - max(file.lstat().st_mtime for file in (path, *path.rglob("*"))) > UNTOUCHED
    except OSError:
        return False  # it goes or changes this moment, so someone is at it


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        log.debug("%s could not be removed: %s", path, error)
