"""Have a host keep the objects of loaded modules from garbage collection, as conftest.py does for the tests.

Those of PyTorch alone take a tenth of a second each time that ComfyUI or the pack collects, several times a job. What
is there before the first job is kept, and nothing later: a model that was loaded by then would stay for good. A host
loads this file as a custom node (`add_to`).
"""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

NODE_CLASS_MAPPINGS: dict[str, type] = {}


def add_to(base: Path) -> None:
    """Put this file into the custom nodes of a host that has not been started."""
    shutil.copyfile(__file__, base / "custom_nodes" / Path(__file__).name)


class _Keeper:
    used = False

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        if not self.used:
            self.used = True
            gc.collect()
            gc.freeze()
        return job


if not __name__.startswith("kit"):
    from server import PromptServer

    PromptServer.instance.add_on_prompt_handler(_Keeper())
