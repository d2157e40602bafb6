"""Have a host lack a Python package that the tests' environment has.

A host loads this file as a custom node (`add_to`).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

PACKAGE = "prodigyopt"
NODE_CLASS_MAPPINGS: dict[str, type] = {}


def add_to(base: Path) -> None:
    """Put this file into the custom nodes of a host that has not been started."""
    shutil.copyfile(__file__, base / "custom_nodes" / Path(__file__).name)


if not __name__.startswith("kit"):
    sys.modules[PACKAGE] = None  # type: ignore[assignment]  # importing it ends as if it were not there
