"""Comparison Picture, a part of Compare Models."""

from __future__ import annotations

import time
from typing import Any

from comfy_api.latest import io

from .comparison import FOLDER, PART_DESCRIPTION
from .host import folders
from .host.images import from_image_tensor
from .host.peak_memory import peak_memory


class ComparisonPicture(io.ComfyNode):
    """Stores a picture with the time and memory that it took."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierComparisonPicture",
            display_name="Comparison Picture",
            category="Atelier/compare",
            description=PART_DESCRIPTION,
            is_dev_only=True,
            inputs=[io.Image.Input("image", tooltip="The picture."),
                    io.Float.Input("started", force_input=True, tooltip="When its sampling began."),
                    io.String.Input("key", tooltip="Name to keep it under."),
                    io.Boolean.Input("loading", default=False, optional=True,
                                     tooltip="Whether the model was on its way to the device in this time.")],
            outputs=[io.AnyType.Output(display_name="done", tooltip="For the next gate.")],
        )

    @classmethod
    def execute(cls, image: Any, started: float, key: str, loading: bool = False) -> io.NodeOutput:
        """Write the measurements, then the picture, so that every stored picture has its measurements."""
        from ..atelier.files import atomic_file, write_json

        seconds = time.monotonic() - started
        folder = folders.work_folder(FOLDER)
        write_json(folder / f"{key}.json", {"seconds": seconds, "loading": loading, "peak": peak_memory()})
        with atomic_file(folder / f"{key}.png") as part:
            from_image_tensor(image)[0].save(part, format="PNG", compress_level=1)
        return io.NodeOutput(key)
