"""Find ComfyUI on this machine, or get it.

    python tools/comfyui.py            print its path; exit 1 if there is none
    python tools/comfyui.py --clone    try a shallow clone into .comfyui/ where there is none
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLONE = ROOT / ".comfyui" / "ComfyUI"
NO_CLONE = ROOT / ".comfyui" / "no-clone.txt"
"""Why the last attempt to clone failed; the tests quote it where they skip."""

PACK = "ComfyUI-Atelier"
NOT_THE_PACK = shutil.ignore_patterns(".git", ".venv", ".comfyui", "__pycache__", ".*_cache", "node_modules", "*.part")
REPOSITORY = "https://github.com/comfyanonymous/ComfyUI.git"


def is_comfyui(path: Path) -> bool:
    """True for the root of a ComfyUI checkout."""
    return all((path / name).is_file() for name in ("main.py", "folder_paths.py", "comfyui_version.py"))


def places() -> list[Path]:
    """Candidate folders; the first that holds ComfyUI wins."""
    named = os.environ.get("COMFYUI_PATH")
    home = Path.home()
    return [
        *([Path(named).expanduser()] if named else []),
        # Not ROOT, which has links resolved: a linked pack is in custom_nodes only under the path it was started by.
        *(parent.parent for parent in (Path(__file__).absolute().parent.parent.parent, ROOT.parent)
          if parent.name == "custom_nodes"),
        home / "ComfyUI",
        home / "comfy" / "ComfyUI",
        CLONE,
    ]


def find() -> Path | None:
    """The ComfyUI checkout to use, or None."""
    return next((path.resolve() for path in places() if is_comfyui(path)), None)


def clone() -> str:
    """Clone ComfyUI into .comfyui/; return the reason if that failed, else an empty text."""
    if shutil.which("git") is None:
        return "git is not installed"
    part = CLONE.with_name(CLONE.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    # No password prompt, and no endless wait without a network.
    command = ["git", "-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=20",
               "clone", "--quiet", "--depth", "1", REPOSITORY, str(part)]
    try:
        result = subprocess.run(command, env={**os.environ, "GIT_TERMINAL_PROMPT": "0"}, stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, errors="replace", timeout=600)
    except subprocess.TimeoutExpired:
        return "cloning took more than ten minutes"
    if result.returncode:
        shutil.rmtree(part, ignore_errors=True)
        return (result.stderr.strip().splitlines() or [f"git ended with {result.returncode}"])[-1]
    part.rename(CLONE)
    return ""


def install_pack(base: Path) -> Path:
    """Put this checkout into the custom nodes of a ComfyUI base folder: linked, or copied where links are not allowed.

    Makes what the host expects to find in a base folder and does not make itself.
    """
    for name in ("custom_nodes", "models", "input", "output", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
    pack = base / "custom_nodes" / PACK
    if pack.is_symlink() and pack.resolve() == ROOT:
        return pack
    if pack.is_symlink():
        pack.unlink()
    elif pack.exists():
        shutil.rmtree(pack)
    try:
        pack.symlink_to(ROOT, target_is_directory=True)
    except OSError:
        # Windows without developer mode.
        shutil.copytree(ROOT, pack, ignore=NOT_THE_PACK)
    return pack


def main() -> int:
    """Print the path of ComfyUI."""
    parser = argparse.ArgumentParser(description="Find ComfyUI on this machine, or get it.")
    parser.add_argument("--clone", action="store_true", help="try a shallow clone into .comfyui/ where there is none")
    arguments = parser.parse_args()

    found = find()
    failure = ""
    if found is None and arguments.clone:
        print(f"No ComfyUI found; cloning {REPOSITORY} into {CLONE} ...", file=sys.stderr)
        failure = clone()
        NO_CLONE.write_text(failure, encoding="utf-8")
        found = find()
    if found is None:
        print(f"No ComfyUI{f' ({failure})' if failure else ''}. Looked in: {', '.join(map(str, places()))}. "
              "Set COMFYUI_PATH to the folder that holds its main.py.", file=sys.stderr)
        return 1
    print(found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
