"""The packages that the pack needs beside the host's own, and what a person does where one is missing."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any

from ...atelier.errors import AtelierError

REQUIRED = ("diffusers", "peft", "openai", "psutil")
"""Modules of `requirements.txt`. The host brings what else is used."""
_REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"


def missing_packages() -> list[str]:
    """Those of `REQUIRED` that this Python does not find; none is imported."""
    return [name for name in REQUIRED if importlib.util.find_spec(name) is None]


def install_command() -> str:
    """The command that installs them for the Python that runs the host."""
    return f'"{sys.executable}" -m pip install -r "{_REQUIREMENTS}"'


def explain_missing(node: Any) -> Any:
    """Have a node say what to install where one of the packages is missing, in place of Python's own error.

    Args:
        node: A node class; its `execute` is replaced.

    Returns:
        The class itself.
    """
    plain = node.__dict__["execute"].__func__

    @functools.wraps(plain)
    def execute(cls: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return plain(cls, *args, **kwargs)
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if name not in REQUIRED:
                raise
            raise AtelierError(f"The Python package {name!r} is not installed.",
                               f"Stop ComfyUI, run {install_command()} and start it again.") from error

    node.execute = classmethod(execute)
    return node
