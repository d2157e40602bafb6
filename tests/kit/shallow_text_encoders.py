"""Have ComfyUI build the large text encoders of SD 2 and SDXL with few layers, as the shapes "small" have them.

ComfyUI takes their depth (24 and 32 layers) from its own files, whatever a checkpoint holds. Where the depth is
not what a test is about, the rest of the host's code is shown as well by four layers.

A host loads this file as a custom node (`add_to`); scripts that use ComfyUI's modules import it from beside them.
"""

from __future__ import annotations

import shutil
from functools import wraps
from pathlib import Path
from typing import Any

LAYERS = 4
NAMES = ("clip_g", "clip_h")
"""What ComfyUI calls OpenCLIP's ViT-bigG and ViT-H."""
NODE_CLASS_MAPPINGS: dict[str, type] = {}


def add_to(base: Path) -> None:
    """Put this file into the custom nodes of a host that has not been started."""
    shutil.copyfile(__file__, base / "custom_nodes" / Path(__file__).name)


def _patch() -> None:
    from comfy import sd1_clip

    original = sd1_clip.SDClipModel.__init__

    @wraps(original)
    def build(self: Any, *args: Any, model_options: dict[str, Any] | None = None, **kwargs: Any) -> None:
        depth = {f"{name}_model_config": {"num_hidden_layers": LAYERS} for name in NAMES}
        original(self, *args, model_options={**(model_options or {}), **depth}, **kwargs)

    sd1_clip.SDClipModel.__init__ = build


# Not in a test's own process, which imports it for `LAYERS` and `add_to`, and may have ComfyUI's modules loaded.
if __name__ != f"kit.{Path(__file__).stem}":
    _patch()
