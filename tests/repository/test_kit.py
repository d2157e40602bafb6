"""The index of the test kit names every module of it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import kit


def test_the_index_names_every_module() -> None:
    assert kit.__doc__ is not None and kit.__file__ is not None
    named = re.findall(r"^    (\w+)  +\S", kit.__doc__, re.M)
    folder = Path(kit.__file__).parent
    modules = sorted([path.stem for path in folder.glob("*.py") if path.stem != "__init__"]
                     + [path.parent.name for path in folder.glob("*/__init__.py")])
    assert sorted(named) == modules
