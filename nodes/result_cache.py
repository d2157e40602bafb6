"""Results kept as files: the same request finds its file again, and no other file is overwritten."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from ..atelier.files import write_json
from .host import folders
from .host.allowed import check_written


@dataclass(frozen=True)
class CachedResult:
    """The file or folder for the result of a request, with the report if the result exists already."""

    path: Path
    request: str
    report: str | None
    """The report saved with the result; None if the result has yet to be written to `path`."""

    def remember(self, report: str) -> None:
        """Record that `path` now holds the result."""
        write_json(_record_path(self.path), {"path": str(self.path), "request": self.request, "report": report,
                                      "state": folders.disk_state(self.path)})


def find_or_reserve(path: Path, *request: object) -> CachedResult:
    """Find the result of `request`, or a free path for it: `path`, with a number where that holds something else.

    Nothing is created; a free path is not reserved against other processes.

    Args:
        path: The requested file or folder.
        request: Everything the result depends on.

    Raises:
        AtelierError: a link leads out of the folders that a graph may write.
    """
    def numbered(number: int) -> str:
        # A folder's name has no ending: in "sd-v1.5" the dot is part of the name.
        return f"{path.name}-{number}" if path.is_dir() else f"{path.stem}-{number}{path.suffix}"

    key = hashlib.sha256(json.dumps([str(part) for part in request]).encode()).hexdigest()
    number = 1
    while True:
        candidate = check_written(path if number == 1 else path.with_name(numbered(number)))
        if not candidate.exists():
            return CachedResult(candidate, key, None)
        record = _read_record(candidate)
        if record.get("request") == key and record.get("state") == folders.disk_state(candidate):
            return CachedResult(candidate, key, record["report"])
        number += 1


def _record_path(path: Path) -> Path:
    return folders.work_folder("made") / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"


def _read_record(path: Path) -> dict[str, str]:
    try:
        return json.loads(_record_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
