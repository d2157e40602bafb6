"""Images to Training Set: a training set from pictures in the graph."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..atelier.dataset.types import Crop, Resolution
from . import sockets
from .host import folders
from .host.images import from_image_tensor
from .training_set_widgets import bucket_inputs, size_inputs, trigger_input, use_inputs


class ImagesToTrainingSet(io.ComfyNode):
    """Makes a training set of pictures in the graph."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierImagesToTrainingSet",
            display_name="Images to Training Set",
            category="Atelier/dataset",
            description="A training set from pictures that are in the graph: loaded, generated or edited.",
            search_aliases=["dataset", "training images"],
            inputs=[
                io.Image.Input("images", tooltip="The pictures."),
                io.String.Input("captions", default="", multiline=True,
                                tooltip="One line for each picture, or one line for all."),
                trigger_input(),
                *size_inputs(), *use_inputs(), *bucket_inputs(),
            ],
            outputs=[sockets.TrainingSet.Output(display_name="training set", tooltip="For Train LoRA.")],
        )

    @classmethod
    def execute(cls, images: Any, captions: str, trigger: str, resolution: int, crop: str, repeats: int, flip: bool,
                bucket_step: int, max_aspect: float) -> io.NodeOutput:
        """Write the pictures to files named by their content, and list these."""
        from ..atelier.dataset.from_images import from_images

        lines = [line.strip() for line in captions.splitlines() if line.strip()] or [""]
        return io.NodeOutput(from_images(
            from_image_tensor(images), lines, folders.work_folder("pictures"), trigger=trigger.strip(),
            resolution=Resolution(resolution, Crop(crop), bucket_step, max_aspect), repeats=repeats, flip=flip))
