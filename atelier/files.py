"""Files that appear under their final name only when they are whole.

Everything is written beside its destination, flushed to disk and renamed. A run that fails, is interrupted
or is killed leaves no half-written result, and what stood there before stays. What a killed process wrote beside a
destination goes when the next one writes to that folder.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import AtelierError, NameTaken
from .temp_paths import ASIDE_SUFFIX, temp_path

RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}
"""Names that Windows keeps for devices, whatever the ending."""


def file_name(text: str) -> str:
    """The name of a new file as a person typed it: good on every system, never outside its folder.

    Args:
        text: A name without ending, with `/` or `\\` between folders.

    Returns:
        The same with `/` between folders.

    Raises:
        AtelierError: it is empty, leaves its folder or could not be written on some system.
    """
    parts = text.strip().replace("\\", "/").split("/")
    for part in parts:
        reserved = part.split(".")[0].rstrip().upper() in RESERVED
        forbidden = any(c in '<>:"|?*' or ord(c) < 32 for c in part)
        if not part or part.strip() != part or part.endswith(".") or len(part.encode()) > 200 or reserved or forbidden:
            raise AtelierError(f"{text!r} cannot be a file name.",
                               'Use letters, digits, spaces, - and _, with / between folder names; no < > : " | ? *, '
                               "no dot at the end, and nothing like con or com1.")
    return "/".join(parts)


@contextmanager
def atomic_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Give a path to write to; on a clean exit that file becomes `path`, otherwise it is removed.

    Args:
        path: The destination.
        replace: Whether a file that stands there goes.

    Raises:
        NameTaken: there is one, and it does not; also one that another process made meanwhile.
        AtelierError: the disk is full or the destination cannot be written.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = temp_path(path)
        try:
            yield part
            _flush(part)
            if replace:
                part.replace(path)
            else:
                _take_name(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; on a clean exit it becomes `path`, otherwise it is removed.

    A folder that stood at `path` is moved aside first and deleted last, so that at every moment either the
    old or the new one is there whole (but for the instant between two renames). Where `path` is a link, the link stays
    and what it points to is replaced.

    Raises:
        AtelierError: the disk is full or the destination cannot be written.
    """
    with _explained(path):
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = temp_path(path)
        try:
            part.mkdir()
            yield part
            for file in part.rglob("*"):
                if file.is_file():
                    _flush(file)
            _take_place(part, path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def write_text(path: Path, text: str, *, replace: bool = True) -> None:
    """Write `text` as UTF-8 with `\\n` line ends, whole or not at all; otherwise as `atomic_file`."""
    with atomic_file(path, replace=replace) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _take_name(part: Path, path: Path) -> None:
    """Rename without replacing, in one step wherever the file system can."""
    try:
        if os.name == "nt":
            part.rename(path)  # which never replaces there
            return
        path.hardlink_to(part)
    except FileExistsError:
        raise NameTaken(path) from None
    except OSError:  # such as on a FAT disk, which has no links
        if path.exists():
            raise NameTaken(path) from None
        part.rename(path)
    else:
        part.unlink()


def _take_place(part: Path, path: Path) -> None:
    if not path.exists():
        part.rename(path)
        return
    old = temp_path(path, ASIDE_SUFFIX)
    path.rename(old)
    try:
        part.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    """Force the file's bytes to disk, so that the rename cannot outlive them in a power cut."""
    # r+b: Windows refuses to flush a handle that is open for reading only.
    with path.open("r+b") as file:
        os.fsync(file.fileno())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise AtelierError(f"The disk is full: {path} could not be written ({free / 1e6:.0f} MB free).",
                                   "Free some space or choose another folder, and run again.") from error
        if isinstance(error, PermissionError):
            raise AtelierError(f"{path} cannot be written: permission denied.",
                               "Choose a folder you may write to, or close the program that holds the file."
                               ) from error
        raise AtelierError(f"{path} could not be written: {error.strerror or error}.",
                           "Choose another place, and run again.") from error
