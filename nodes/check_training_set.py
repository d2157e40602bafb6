"""Check Training Set: near-duplicates, blurred and tiny pictures, shown and on request left out."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..atelier.dataset.types import TrainingSet
from . import sockets
from .host.images import to_image_tensor
from .host.progress import HostProgress
from .widgets import arrow_step

_SHARPNESS, _ENLARGED = 6.0, 1.25
"""Defaults of `atelier.dataset.faults`, which is too heavy to import with the pack; a test compares them."""


class CheckTrainingSet(io.ComfyNode):
    """Finds pictures that a training set would be better without."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierCheckTrainingSet",
            display_name="Check Training Set",
            category="Atelier/dataset",
            description="Finds near-duplicates, blurred and tiny pictures, marks them on the contact sheet, and leaves "
                        "out those that you say.",
            search_aliases=["duplicates", "blurry", "dataset quality", "clean dataset", "small pictures"],
            is_output_node=True,
            inputs=[
                sockets.TrainingSet.Input("training_set", tooltip="From Image Folder or another."),
                io.Boolean.Input("drop_duplicates", default=False,
                                 tooltip="Leave out near-duplicates: of each group the largest picture stays."),
                io.Boolean.Input("drop_blurred", default=False, tooltip="Leave out blurred pictures."),
                io.Boolean.Input("drop_tiny", default=False,
                                 tooltip="Leave out pictures that are much enlarged to their training size."),
                io.Float.Input("sharpness", default=_SHARPNESS, min=0, max=100, step=0.1, advanced=True,
                               extra_dict=arrow_step(1),
                               tooltip="Pictures with fine detail of less contrast than this are blurred. The list "
                                       "says each one's. 0 finds none."),
                io.Float.Input("enlarged", default=_ENLARGED, min=1, max=16, step=0.01, advanced=True,
                               extra_dict=arrow_step(0.25),
                               tooltip="Pictures that are enlarged by more than this factor are tiny."),
            ],
            outputs=[
                sockets.TrainingSet.Output(display_name="training set", tooltip="Without what is left out."),
                io.Image.Output(display_name="preview", tooltip="The pictures, those with faults first and marked."),
                io.String.Output(display_name="report", tooltip="Each fault in a line."),
            ],
        )

    @classmethod
    def execute(cls, training_set: TrainingSet, drop_duplicates: bool, drop_blurred: bool, drop_tiny: bool,
                sharpness: float, enlarged: float) -> io.NodeOutput:
        """Look at every picture, and show what is found."""
        from ..atelier.dataset.faults import Fault, find_faults, without
        from ..atelier.dataset.preview import contact_sheet

        found = find_faults(training_set, HostProgress(), sharpness=sharpness, enlarged=enlarged)
        dropped = [fault for fault, drop in zip(Fault, (drop_duplicates, drop_blurred, drop_tiny), strict=True) if drop]
        data = without(training_set, found, dropped)
        marks = {image: ", ".join(f"{each.fault.value} ({each.detail})" for each in found if each.image == image)
                 for image in dict.fromkeys(each.image for each in found)}
        sheet = to_image_tensor([contact_sheet(training_set, marks=marks)])
        left_out = len(training_set.samples) - len(data.samples)
        lines = [f"{image.name}: {told}" for image, told in marks.items()]
        text = "\n".join([f"{len(marks)} of {len(training_set.samples)} pictures are faulty, {left_out} left out",
                          *lines])
        return io.NodeOutput(data, sheet, text, ui={**ui.PreviewImage(sheet, cls=cls).as_dict(), "text": (text,)})
