"""Atomic writing: files and folders appear under their final name only when they are complete.

Everything is written to a temporary path in the same folder, flushed to disk and renamed. A run that fails, is
interrupted or is killed leaves no half-written result and keeps the file that was there. Temporary files of killed
processes are removed when the next process writes to that folder.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import AtelierError, NameTaken
from .temp_paths import ASIDE_SUFFIX, temp_path

RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}
"""Names that Windows keeps for devices, whatever the ending."""


def file_name(text: str) -> str:
    """Check the name that a person typed for a new file: valid on every system, and never outside its folder.

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
        forbidden = any(c in '<>:"|?*' or ord(c) < 32 or "\ud800" <= c <= "\udfff" for c in part)
        if not part or part.strip() != part or part.endswith(".") or reserved or forbidden or len(part.encode()) > 200:
            raise AtelierError(f"{_shown(text)} cannot be a file name.",
                               'Use letters, digits, spaces, - and _, with / between folder names; no < > : " | ? *, '
                               "no dot at the end, and nothing like con or com1.")
    return "/".join(parts)


def folder_name(text: str) -> str:
    """Check the name that a person typed for a folder, as `file_name` does; slashes at its end or doubled are no fault.

    Returns:
        The same with `/` between folders; "" for no name, which stands for the folder that it would be below.

    Raises:
        AtelierError: it leaves its folder or could not be written on some system.
    """
    plain = re.sub(r"/+", "/", text.strip().replace("\\", "/"))
    return file_name(plain[:-1] if len(plain) > 1 and plain.endswith("/") else plain) if plain else ""


def _shown(text: str) -> str:
    return repr(text if len(text) <= 300 else text[:297] + "...")


def check_apart(destination: Path, read: Iterable[Path]) -> None:
    """Refuse to write over what is read, even if the paths differ in links, `..` or capitals.

    Args:
        destination: The file or folder to write.
        read: The files and folders that the result is made of. None of them need exist.

    Raises:
        AtelierError: `destination` is one of `read`, holds one or lies in one.
    """
    there = destination.resolve()
    for path in read:
        here = path.resolve()
        if any(_same(here, place) for place in (there, *there.parents)) or any(_same(p, there) for p in here.parents):
            raise AtelierError(f"{destination} overlaps with its source {path}.", "Choose another destination.")


def _same(one: Path, other: Path) -> bool:
    # Names that differ can be one file where capitals do not count; only the system knows.
    return one == other or (one.exists() and other.exists() and one.samefile(other))


@contextmanager
def atomic_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to; on success rename it to `path`, otherwise remove it.

    Args:
        path: The destination.
        replace: Whether to replace an existing file.

    Raises:
        NameTaken: `path` exists and must not be replaced, even if another process created it meanwhile.
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
    """Yield an empty temporary folder to fill; on success rename it to `path`, otherwise remove it.

    An existing folder at `path` is moved aside first and deleted last, so that either the old or the new one is
    complete at every moment (except between the two renames). If `path` is a link, the link stays and its target is
    replaced.

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
            _replace_folder(part, path)
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


def _replace_folder(part: Path, path: Path) -> None:
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
