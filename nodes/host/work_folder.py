"""Where the pack keeps its own files."""

from __future__ import annotations

from pathlib import Path

import folder_paths


def work_folder(name: str) -> Path:
    """One of the pack's own persistent folders ("cache", "runs", …), below the host's user folder."""
    return Path(folder_paths.get_user_directory()) / "atelier" / name
