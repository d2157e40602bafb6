"""Find a Chromium on this machine for the browser tests: Chromium, Chrome or Edge.

    python tools/chromium.py           print its path; exit 1 if there is none
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge",
            "msedge")
HELP = "Install it (Debian, Ubuntu: apt install chromium) or set CHROMIUM_PATH to its executable to run them."


def places() -> list[Path]:
    """Candidate paths; the first that exists wins."""
    named = os.environ.get("CHROMIUM_PATH")
    found = [Path(path) for command in COMMANDS if (path := shutil.which(command))]
    programs = [Path(folder) for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")
                if (folder := os.environ.get(name))]
    return [
        *([Path(named).expanduser()] if named else []),
        *found,
        *(Path("/Applications") / f"{name}.app" / "Contents" / "MacOS" / name
          for name in ("Chromium", "Google Chrome", "Microsoft Edge")),
        *(folder / part for folder in programs
          for part in ("Google/Chrome/Application/chrome.exe", "Chromium/Application/chrome.exe",
                       "Microsoft/Edge/Application/msedge.exe")),
    ]


def find() -> Path | None:
    """The executable to use, or None."""
    return next((path for path in places() if path.is_file()), None)


def main() -> int:
    """Print the path of Chromium."""
    found = find()
    if found is None:
        print(f"No Chromium found. {HELP}", file=sys.stderr)
        return 1
    print(found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
