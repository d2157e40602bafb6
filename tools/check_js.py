"""Check the types of web/js (JSDoc) with TypeScript.

    python tools/check_js.py

Needs Node.js and npm; the first run fetches the pinned compiler into tools/js/node_modules. Where that is not possible,
the check is skipped and says why.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "js"
CONFIG = FOLDER / "tsconfig.json"
_COMPILER = FOLDER / "node_modules" / "typescript" / "bin" / "tsc"
_INSTALLED = FOLDER / "node_modules" / ".package-lock.json"


def compiler() -> tuple[list[str] | None, str]:
    """The command of the pinned TypeScript compiler, installed if need be; None and what is missing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        return None, "Node.js 18 or newer"
    lock = FOLDER / "package-lock.json"
    if not _INSTALLED.is_file() or _INSTALLED.stat().st_mtime < lock.stat().st_mtime:
        if npm is None:
            return None, "npm"
        run = subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=FOLDER, capture_output=True, text=True,
                             encoding="utf-8", errors="replace", check=False)
        if run.returncode or not _COMPILER.is_file():
            reason = (run.stderr.strip().splitlines() or ["no reason given"])[0]
            return None, f"TypeScript, which npm could not install ({reason})"
        _INSTALLED.touch()
    return [node, str(_COMPILER)], ""


def errors(command: list[str], config: Path = CONFIG) -> str:
    """The compiler's errors; empty if there are none."""
    run = subprocess.run([*command, "--pretty", "false", "--project", str(config)], capture_output=True, text=True,
                         encoding="utf-8", check=False)
    return run.stdout + run.stderr if run.returncode else ""


def main() -> int:
    """Check and report."""
    command, missing = compiler()
    if command is None:
        print(f"web/js: types NOT checked; this needs {missing}.")
        return 0
    found = errors(command)
    print(found or "web/js: types checked, no errors.", end="" if found else "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
