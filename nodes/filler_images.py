"""Filler Images: random pictures to fill a block grid with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from . import sockets
from .host import folders
from .host.images import to_image_tensor
from .host.progress import HostProgress
from .validation import check
from .widgets import FOLDER_LIST

if TYPE_CHECKING:
    from ..atelier.dataset.types import TrainingSet


class FillerImages(io.ComfyNode):
    """Draws random pictures to fill a grid with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierFillerImages",
            display_name="Filler Images",
            category="Atelier/grid",
            description="Draws pictures from a folder or a training set to fill a block grid with. No picture comes "
                        "twice, copies of a file included.",
            search_aliases=["random images", "load images", "fillers", "flickr8k"],
            inputs=[
                io.String.Input("folder", default="", placeholder="a folder in ComfyUI's input", extra_dict=FOLDER_LIST,
                                tooltip="Where the pictures are; folders below count too. Not needed with a training "
                                        "set."),
                io.Int.Input("count", default=48, min=1, max=10_000,
                             tooltip="How many: for blocks of 2 × 2 three for each unique picture."),
                io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=True,
                             tooltip="Decides which pictures, and their order."),
                io.Boolean.Input("allow_repeats", default=False, advanced=True,
                                 tooltip="Where there are too few, use pictures again rather than stop."),
                sockets.TrainingSet.Input("training_set", optional=True,
                                          tooltip="Draw from these pictures, of Hub Dataset for instance."),
            ],
            outputs=[
                io.Image.Output(display_name="images", is_output_list=True, tooltip="Pictures of their own sizes."),
                io.String.Output(display_name="sources", is_output_list=True,
                                 tooltip="Their file names, for the grid's manifest."),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        """Report before the run that the folder is missing or not allowed; with a training set it stays empty."""
        return check(folders.input_folder, folder or None)

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, training_set: Any = None, **_: Any) -> str:
        """Change when a file of the folder does."""
        return folders.disk_state(folders.input_folder(folder)) if folder and training_set is None else ""

    @classmethod
    def execute(cls, folder: str, count: int, seed: int, allow_repeats: bool, training_set: TrainingSet | None = None
                ) -> io.NodeOutput:
        """Draw the pictures and read them."""
        from ..atelier.grid.fillers import draw_fillers, fillers_from_folder

        progress = HostProgress()
        if training_set is not None:
            fillers = draw_fillers([sample.image for sample in training_set.samples], count, seed,
                                   allow_repeats=allow_repeats, progress=progress)
        else:
            fillers = fillers_from_folder(folders.input_folder(folder), count, seed, allow_repeats=allow_repeats,
                                          progress=progress)
        return io.NodeOutput([to_image_tensor([filler.picture]) for filler in fillers],
                             [filler.path.name for filler in fillers])
