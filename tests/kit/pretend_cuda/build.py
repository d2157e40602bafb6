"""Compiles the pretend device for the PyTorch that is installed. Imports no torch: the device has to come before it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).with_name("device.cpp")

RELEASE = "2.13."
"""Releases of PyTorch whose internals the source knows."""


def why_not() -> str:
    """Why the device cannot be built on this machine; empty where it can."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        return "PyTorch"
    if sys.platform != "linux":
        return "Linux, for the pretend CUDA device"
    if not torch.startswith(RELEASE) or not torch.endswith("+cpu"):
        return f"PyTorch {RELEASE}x for CPUs, for the pretend CUDA device (there is {torch})"
    if shutil.which("g++") is None:
        return "a C++ compiler (g++), for the pretend CUDA device"
    return ""


def library() -> Path:
    """The compiled device: built once for each source and installed PyTorch, which takes some ten seconds.

    Raises:
        subprocess.CalledProcessError: it does not compile.
    """
    found = find_spec("torch")
    assert found is not None and found.origin is not None
    torch = Path(found.origin).parent  # the library looks for torch's own there
    key = hashlib.sha256(f"{torch} {version('torch')} {sys.version}".encode() + SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"atelier-pretend-cuda-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    built = folder / f"{key}.so"
    if built.exists():
        return built
    part = folder / f"{key}.{os.getpid()}.part"
    subprocess.run(
        ["g++", "-O1", "-w", "-std=c++20", "-shared", "-fPIC", str(SOURCE), "-o", str(part), f"-I{torch}/include",
         f"-I{torch}/include/torch/csrc/api/include", f"-L{torch}/lib", "-lc10", "-ltorch_cpu", "-ltorch",
         f"-Wl,-rpath,{torch}/lib"], check=True, capture_output=True, text=True)
    part.replace(built)
    return built
