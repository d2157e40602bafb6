"""Join Training Sets: several training sets, each with its own repeats and resolution, as one."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..atelier.dataset.types import TrainingSet
from . import sockets
from .host.images import to_image_tensor


class JoinTrainingSets(io.ComfyNode):
    """Joins training sets."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierJoinTrainingSets",
            display_name="Join Training Sets",
            category="Atelier/dataset",
            description="Several training sets as one; each keeps its repeats, resolution and prior pictures. The same "
                        "folder read at two resolutions and joined trains at both.",
            search_aliases=["combine datasets", "merge training sets", "multi resolution", "several folders"],
            is_output_node=True,
            inputs=[
                sockets.TrainingSet.Input("first", tooltip="Its resolution is written into the LoRA's header where no "
                                                           "other is larger."),
                sockets.TrainingSet.Input("second", tooltip="Another; flip and trigger must agree with the first's."),
                sockets.TrainingSet.Input("third", optional=True, tooltip="One more, if wanted."),
                sockets.TrainingSet.Input("fourth", optional=True, tooltip="One more, if wanted."),
            ],
            outputs=[
                sockets.TrainingSet.Output(display_name="training set", tooltip="For Train LoRA."),
                io.Image.Output(display_name="preview", tooltip="The first pictures as the trainer will see them."),
            ],
        )

    @classmethod
    def execute(cls, first: TrainingSet, second: TrainingSet, third: TrainingSet | None = None,
                fourth: TrainingSet | None = None) -> io.NodeOutput:
        """Join the sets and show a preview."""
        from ..atelier.dataset.join import join
        from ..atelier.dataset.preview import contact_sheet, summary

        data = join([each for each in (first, second, third, fourth) if each is not None])
        sheet = to_image_tensor([contact_sheet(data)])
        return io.NodeOutput(data, sheet, ui={**ui.PreviewImage(sheet, cls=cls).as_dict(), "text": (summary(data),)})
