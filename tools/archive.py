"""Write the archive that ComfyUI's registry would get, and say how large it is.

    python tools/archive.py [dist/atelier.zip] [--list]

The publisher's own tool packs what Git tracks, less what .comfyignore names; so does this, by Git's own reading of the
patterns.
"""

from __future__ import annotations

import argparse
import subprocess
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IGNORED = ".comfyignore"


def shipped() -> list[str]:
    """Paths of the archive's files, in order, with / between folders.

    Raises:
        subprocess.CalledProcessError: this is no Git checkout.
    """
    return sorted(_tracked() - _tracked("--ignored", f"--exclude-from={IGNORED}"))


def _tracked(*options: str) -> set[str]:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z", "--cached", *options], capture_output=True,
                            check=True)
    return {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}


def write(path: Path) -> Path:
    """Write the archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in shipped():
            archive.write(ROOT / name, name)
    return path


def main() -> int:
    """Write the archive and print its size."""
    parser = argparse.ArgumentParser(description="Write the archive that ComfyUI's registry would get.")
    parser.add_argument("path", type=Path, nargs="?", default=ROOT / "dist" / "atelier.zip")
    parser.add_argument("--list", action="store_true", help="print each file with its size")
    arguments = parser.parse_args()
    with zipfile.ZipFile(write(arguments.path)) as archive:
        files = archive.infolist()
    if arguments.list:
        for file in sorted(files, key=lambda file: -file.compress_size):
            print(f"{file.compress_size:>10} {file.filename}")
    print(f"{arguments.path}: {len(files)} files, {arguments.path.stat().st_size / 1e6:.1f} MB "
          f"({sum(file.file_size for file in files) / 1e6:.1f} MB unpacked)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
