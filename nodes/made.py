"""Remember what large files were made from, so that the same request finds them and no other file is overwritten."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ..atelier.files import write_json
from . import host


@dataclass(frozen=True)
class Made:
    """A place for the result of a request, or the result itself where the request was met before."""

    path: Path
    request: str
    report: str | None
    """What was reported when the file was made; None when it is still to be made."""

    def remember(self, report: str) -> None:
        """Note that `path` now holds the result."""
        write_json(_note(self.path), {"path": str(self.path), "request": self.request, "report": report,
                                      "state": host.disk_state(self.path)})


def find_or_reserve(wanted: Path, *request: object) -> Made:
    """Where the result of `request` goes: `wanted`, or with a number where something else has that name.

    Args:
        wanted: The file or folder asked for.
        request: Everything the result depends on.
    """
    def numbered(number: int) -> str:
        # Folders have no ending: in "sd-v1.5" the dot is part of the name.
        return f"{wanted.name}-{number}" if wanted.is_dir() else f"{wanted.stem}-{number}{wanted.suffix}"

    key = hashlib.sha256(json.dumps([str(part) for part in request]).encode()).hexdigest()
    number = 1
    while True:
        path = wanted if number == 1 else wanted.with_name(numbered(number))
        if not path.exists():
            return Made(path, key, None)
        note = _read(path)
        if note.get("request") == key and note.get("state") == host.disk_state(path):
            return Made(path, key, note["report"])
        number += 1


def _note(path: Path) -> Path:
    return host.work_folder("made") / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> dict[str, str]:
    try:
        return json.loads(_note(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
