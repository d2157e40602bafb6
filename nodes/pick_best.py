"""Pick Best: the pictures with the highest scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..atelier.errors import AtelierError
from . import sockets
from .batching import single, split

if TYPE_CHECKING:
    from ..atelier.score.result import Scores


class PickBest(io.ComfyNode):
    """Keeps the pictures with the highest scores."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierPickBest",
            display_name="Pick Best",
            category="Atelier/score",
            description="Keeps the k pictures with the highest scores, best first.",
            search_aliases=["top k", "best of", "select", "rank"],
            is_input_list=True,
            inputs=[
                io.Image.Input("images", tooltip="The pictures that were scored, in the same order."),
                sockets.Scores.Input("scores", tooltip="From CLIP Score."),
                io.Int.Input("k", default=1, min=1, max=10_000, tooltip="How many to keep."),
            ],
            outputs=[
                io.Image.Output(display_name="images", is_output_list=True, tooltip="The best pictures, best first."),
                sockets.Scores.Output(display_name="scores", tooltip="Their scores."),
            ],
        )

    @classmethod
    def execute(cls, images: list[Any], scores: list[Scores], k: list[int]) -> io.NodeOutput:
        """Select the pictures; their pixels do not change."""
        pictures, all_scores = split(images), single(scores)
        if len(pictures) != len(all_scores.items):
            raise AtelierError(f"There are {len(pictures)} pictures and {len(all_scores.items)} scores.",
                               "Connect the very pictures that were scored.")
        best = all_scores.best(single(k))
        return io.NodeOutput([pictures[index] for index in best], all_scores.chosen(best))
