"""Have ComfyUI build CLIP's text encoders and Stable Diffusion's autoencoder in the size that a checkpoint holds.

ComfyUI takes the depth of the encoders (12, 24 and 32 layers) and the width of the autoencoder (128 channels) from
itself, whatever a checkpoint holds. The shapes "small" have less of both, and the rest of the host's code is shown as
well by them; the shapes "full" and the demo model have what the host expects.

A host loads this file as a custom node (`add_to`); scripts that use ComfyUI's modules import it from beside them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from typing import Any

LAYERS = 4
"""Of the text encoders in the shapes "small"."""
CHANNELS = 64
"""Of the autoencoder in the shapes "small"."""
_LAYER = re.compile(r"(clip_[lgh])\.transformer\.text_model\.encoder\.layers\.(\d+)\.")
NODE_CLASS_MAPPINGS: dict[str, type] = {}


def add_to(base: Path) -> None:
    """Put this file into the custom nodes of a host that has not been started."""
    shutil.copyfile(__file__, base / "custom_nodes" / Path(__file__).name)


def _depths(state: Mapping[str, Any]) -> dict[str, int]:
    """Layers of each text encoder in a checkpoint, by the name that ComfyUI gives it."""
    found: dict[str, int] = {}
    for name in state:
        if match := _LAYER.match(name):
            found[match[1]] = max(found.get(match[1], 0), int(match[2]) + 1)
    return found


def patch() -> None:
    """Do so in this process, which has ComfyUI's modules."""
    from comfy import sd
    from comfy.ldm.models.autoencoder import AutoencodingEngine

    build_clip, build_vae, build_engine = sd.CLIP.__init__, sd.VAE.__init__, AutoencodingEngine.__init__
    widths: dict[str, int] = {}

    @wraps(build_clip)
    def clip(self: Any, *args: Any, model_options: dict[str, Any] | None = None, **kwargs: Any) -> None:
        state = kwargs.get("state_dict", ())
        depths = _depths(state) if isinstance(state, Mapping) else {}
        sized = {f"{name}_model_config": {"num_hidden_layers": depth} for name, depth in depths.items()}
        build_clip(self, *args, model_options={**(model_options or {}), **sized}, **kwargs)

    @wraps(build_vae)
    def vae(self: Any, *args: Any, **kwargs: Any) -> None:
        state = kwargs.get("sd") or args[0]
        widths.clear()
        if "encoder.conv_in.weight" in state:
            widths["ch"] = len(state["encoder.conv_in.weight"])
        build_vae(self, *args, **kwargs)

    @wraps(build_engine)
    def engine(self: Any, *args: Any, encoder_config: dict[str, Any], **kwargs: Any) -> None:
        if "ch" in encoder_config.get("params", ()):
            encoder_config["params"] |= widths
        build_engine(self, *args, encoder_config=encoder_config, **kwargs)

    sd.CLIP.__init__, sd.VAE.__init__, AutoencodingEngine.__init__ = clip, vae, engine


# Not in a test's own process, which imports it for its sizes and `add_to`, and may have ComfyUI's modules loaded.
if __name__ != f"kit.{Path(__file__).stem}":
    patch()
