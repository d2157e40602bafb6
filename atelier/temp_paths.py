"""Temporary paths for files and folders that are being written, and the removal of abandoned ones.

A killed process cannot tidy up. So each temporary name states the machine and the process that writes it, and the next
process that writes to the same folder removes those whose process is no longer alive.
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
"""Suffix of unfinished files and folders. They can be deleted if no process is writing them."""

ASIDE_SUFFIX = ".old"
"""Suffix of a folder that was moved aside to be replaced."""

ABANDONED_AFTER = 24 * 3600
"""Seconds without a change after which a file counts as abandoned even if its process may be alive: one on another
machine, or a new process with the same number."""

_START = 24
"""Characters of the original name that are kept, so that the temporary name fits in any file system."""


def _process_namespace() -> str:
    """The scope in which a process number is unique: a machine or, on Linux, a container (which may have the machine's
    name)."""
    try:
        container = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        container = ""
    return f"{gethostname()} {container}"


@cache
def _machine() -> str:
    return f"{zlib.crc32(_process_namespace().encode()) & 0xFFFF:04x}"


_PROCESS = secrets.token_hex(3)  # beside the number, as in a container every process may have the same
_COUNT = itertools.count()
_NAME = re.compile(rf"\.(?P<start>.+)-(?P<machine>[0-9a-f]{{4}})-(?P<pid>[0-9]+)-(?P<process>[0-9a-f]{{6}})-[0-9]+"
                   rf"(?P<suffix>{re.escape(PART_SUFFIX)}|{re.escape(ASIDE_SUFFIX)})", re.DOTALL)


def temp_path(path: Path, suffix: str = PART_SUFFIX) -> Path:
    """An unused path in the folder of `path`, so that renaming it to `path` stays within one file system.

    The first call of a process for a folder removes what killed processes left there.
    """
    _sweep(path.parent)
    return path.parent / f".{path.name[:_START]}-{_machine()}-{os.getpid()}-{_PROCESS}-{next(_COUNT)}{suffix}"


def is_part(name: str) -> bool:
    """Whether this is the name of an unfinished file or folder, abandoned or not."""
    match = _NAME.fullmatch(name)
    return match is not None and match["suffix"] == PART_SUFFIX


@cache
def _sweep(folder: Path) -> None:
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return  # the write that follows raises a helpful error
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None or not _is_abandoned(match, folder / name):
            continue
        if match["suffix"] == ASIDE_SUFFIX and not _has_successor(match["start"], names):
            continue  # killed between two renames: this is the only copy
        log.info("Removing %s, left unfinished by a process that was killed.", folder / name)
        _remove(folder / name)


def _has_successor(start: str, names: list[str]) -> bool:
    return start in names if len(start) < _START else any(name.startswith(start) for name in names)


def _is_abandoned(match: re.Match[str], path: Path) -> bool:
    if match["machine"] == _machine():
        if int(match["pid"]) == os.getpid():
            return match["process"] != _PROCESS
        if not psutil.pid_exists(int(match["pid"])):
            return True
    try:
        return time.time() - max(file.lstat().st_mtime for file in (path, *path.rglob("*"))) > ABANDONED_AFTER
    except OSError:
        return False  # it is being removed or changed right now, so it is in use


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        log.debug("%s could not be removed: %s", path, error)
