"""Create or update `.venv` with everything the project's make targets need.

    python tools/setup_env.py            library, tests and, where ComfyUI is found, what its server needs
    python tools/setup_env.py --comfy    also ComfyUI's workflow templates and built-in help pages (about 460 MB)

TORCH names another PyTorch, with pip options if need be: TORCH="torch==2.13.0 --index-url https://…/whl/cu130".
A second call with nothing changed ends at once. Standard library only; Python 3.10 or newer; every platform.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import comfyui

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "atelier-environment.json"

TORCH = os.environ.get("TORCH") or "torch==2.13.0"
EXTRAS = ("shell", "dev")
TORCH_FAMILY = {"torch", "torchvision", "torchaudio"}
BULKY = {"comfyui-workflow-templates", "comfyui-embedded-docs"}
# They ask for a torchvision, which may not exist for the PyTorch at hand. Of open_clip only the vocabulary file is
# used; ComfyUI's own list names what else spandrel needs.
WITHOUT_DEPENDENCIES = {"open-clip-torch", "spandrel"}

# The newest releases whose Python part imports beside a PyTorch they were not built for. Their compiled operators
# (nms, roi_align, sox) are then missing, which neither this project nor a start of ComfyUI uses.
UNMATCHED = {"torchvision": "torchvision==0.16.2", "torchaudio": "torchaudio==2.11.0"}


class SetupError(Exception):
    """The environment cannot be created; the text says why and what to do."""


def main() -> int:
    """Bring `.venv` up to date."""
    parser = argparse.ArgumentParser(description="Create or update .venv.")
    parser.add_argument("--comfy", action="store_true", help="with ComfyUI's templates and built-in help pages")
    arguments = parser.parse_args()
    try:
        _update(arguments.comfy)
    except (SetupError, subprocess.CalledProcessError) as error:
        print(f"\nThe environment could not be made: {error}", file=sys.stderr)
        return 1
    return 0


def _update(comfy: bool) -> None:
    if sys.version_info < (3, 10):  # noqa: UP036 - this file gives an older Python a clear error
        raise SetupError(f"this is Python {sys.version.split()[0]}; 3.10 or newer is needed. Name one with "
                         "PYTHON=python3.12 make …")
    host = comfyui.find()
    stamp = _read_stamp()
    comfy = comfy or bool(stamp.get("comfy"))
    key = _key(host, comfy)
    if stamp.get("key") == key and _runs():
        return
    STAMP.unlink(missing_ok=True)
    _create()
    _pip("install", *shlex.split(TORCH))
    torch = _ask("import importlib.metadata as m; print(m.version('torch'))")
    constraints = VENV / "constraints.txt"
    constraints.write_text(f"torch=={torch}\n", encoding="utf-8")

    wanted = _project_requirements()
    if host is not None:
        wanted += [line for line in _lines(host / "requirements.txt")
                   if comfy or _name(line) not in BULKY]
    wanted = [line for line in wanted if _name(line) not in TORCH_FAMILY]
    alone = [line for line in wanted if _name(line) in WITHOUT_DEPENDENCIES]
    _pip("install", "-c", str(constraints), *(line for line in wanted if line not in alone))
    _pip("install", "--no-deps", *alone)
    for package in UNMATCHED:
        _install_companion(package, constraints)
    _verify()
    STAMP.write_text(json.dumps({"key": key, "comfy": comfy}) + "\n", encoding="utf-8")


def _key(host: Path | None, comfy: bool) -> str:
    """Digest of everything the environment depends on."""
    parts: list[bytes] = [TORCH.encode(), sys.version.encode(), str(VENV).encode(), str(comfy).encode()]
    files = [Path(__file__), ROOT / "requirements.txt", ROOT / "pyproject.toml"]
    files += [host / "requirements.txt"] if host else []
    return hashlib.sha256(b"\0".join(parts + [file.read_bytes() for file in files])).hexdigest()


def _read_stamp() -> dict[str, object]:
    try:
        return json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _runs(code: str = "") -> bool:
    try:
        return subprocess.run([PYTHON, "-c", code], capture_output=True).returncode == 0
    except OSError:
        return False


def _create() -> None:
    if _runs("import pip"):  # pip is installed last, so an environment without it is incomplete and is created again
        return
    print(f"Creating {VENV} ...", flush=True)
    try:
        # A copy of the interpreter would miss its libraries on some systems, a link needs a privilege on Windows.
        venv.create(VENV, with_pip=True, clear=True, symlinks=os.name != "nt")
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"Python's venv module failed ({error}). On Debian and Ubuntu: apt install python3-venv"
                         ) from error


def _project_requirements() -> list[str]:
    """`requirements.txt` and the extras of pyproject.toml that the make targets need."""
    # Read by the new environment's Python: tomllib is missing in 3.10, where pip carries its forerunner.
    code = ("import sys, json\n"
            "try:\n import tomllib\n"
            "except ImportError:\n from pip._vendor import tomli as tomllib\n"
            "print(json.dumps(tomllib.load(open(sys.argv[1], 'rb'))['project']['optional-dependencies']))")
    extras = json.loads(_ask(code, str(ROOT / "pyproject.toml")))
    return _lines(ROOT / "requirements.txt") + [line for extra in EXTRAS for line in extras[extra]]


def _lines(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _name(requirement: str) -> str:
    """The package's name in its normalised spelling."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else requirement


def _install_companion(package: str, constraints: Path) -> None:
    """torchvision or torchaudio: the one that matches the PyTorch here, else one whose Python part works with it."""
    if _imports(package):
        return
    matching = _pip("install", "-c", str(constraints), package, check=False)
    if matching and _imports(package):
        return
    print(f"There is no {package} for this PyTorch; taking {UNMATCHED[package]} without its compiled part.")
    _pip("install", "--no-deps", UNMATCHED[package])
    if package == "torchaudio":
        # It documents that it runs without its extension when the file is absent, and fails when it does not fit.
        code = "import importlib.util as u; print(u.find_spec('torchaudio').submodule_search_locations[0])"
        for library in (Path(_ask(code)) / "lib").glob("*_torchaudio*"):
            library.unlink()


def _imports(package: str) -> bool:
    return subprocess.run([PYTHON, "-W", "ignore", "-c", f"import {package}"], capture_output=True).returncode == 0


def _verify() -> None:
    """Check that the basic packages import together."""
    code = "import torch, torchvision, diffusers, transformers, peft; print(torch.__version__, diffusers.__version__)"
    result = subprocess.run([PYTHON, "-W", "ignore", "-c", code], capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise SetupError(f"torch, torchvision, diffusers, transformers and peft are installed in {VENV} but do not "
                         f"import together: {reason}\nDelete {VENV} and run again; to use another PyTorch, set TORCH.")
    print("Environment ready: torch {}, diffusers {}.".format(*result.stdout.split()))


def _ask(code: str, *arguments: str) -> str:
    """The output of a few lines of Python run in the environment."""
    result = subprocess.run([PYTHON, "-c", code, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return result.stdout.strip()


def _pip(*arguments: str, check: bool = True) -> bool:
    names = [a for a in arguments[1:] if not a.startswith("-") and a != str(VENV / "constraints.txt")]
    text = ", ".join(names) if len(names) < 5 else f"{len(names)} packages"
    print(f"Installing {text} ...", flush=True)
    # Quiet twice: errors only.
    command = [str(PYTHON), "-m", "pip", *arguments[:1], "-qq", "--disable-pip-version-check", *arguments[1:]]
    output = None if check else subprocess.DEVNULL
    # A busy package index may pause for longer than pip's default of 15 s in the middle of a large file.
    environment = {"PIP_DEFAULT_TIMEOUT": "60", **os.environ}
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    if check and result.returncode:
        raise SetupError(f"pip could not install {text}; its own words stand above. "
                         "Check the network, or set TORCH if PyTorch is the one that failed.")
    return result.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
