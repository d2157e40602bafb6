"""Have a host keep the objects of loaded modules from garbage collection, as conftest.py does for the tests.

Those of PyTorch, ComfyUI and diffusers are half a million, and ComfyUI and the pack search them several times a job,
0.4 s each time. A host loads this file as a custom node (`add_to`).
"""

from __future__ import annotations

import gc
import shutil
import sys
from pathlib import Path
from typing import Any

NODE_CLASS_MAPPINGS: dict[str, type] = {}
MORE = 1.1
"""By so much the modules must have become more before what is there is kept again: it keeps models that are there."""


def add_to(base: Path) -> None:
    """Put this file into the custom nodes of a host that has not been started."""
    shutil.copyfile(__file__, base / "custom_nodes" / Path(__file__).name)


class _Keeper:
    modules = 0

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        if len(sys.modules) > MORE * self.modules:
            gc.collect()
            gc.freeze()
            self.modules = len(sys.modules)
        return job


if not __name__.startswith("kit"):
    from server import PromptServer

    PromptServer.instance.add_on_prompt_handler(_Keeper())
