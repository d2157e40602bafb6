"""Nodes that score pictures and choose among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..atelier.errors import AtelierError
from ..atelier.score.crop import ClipCrop
from ..atelier.score.definitions import Definition
from . import host, sockets
from .checks import verdict
from .lists import one_each, only, singles

if TYPE_CHECKING:
    from ..atelier.score.result import Scores


class ClipScore(io.ComfyNode):
    """How well pictures match their texts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierCLIPScore",
            display_name="CLIP Score",
            category="Atelier/score",
            description="Scores pictures against their prompts with a CLIP model from models/clip_score. Shows a table "
                        "with mean and standard deviation.",
            search_aliases=["clip score", "evaluate", "metric", "similarity", "rank", "pickscore"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="Pictures of any sizes."),
                io.String.Input("text", multiline=True, default="",
                                tooltip="The prompt: one for all pictures, or a list with one for each."),
                io.Combo.Input("model", options=host.clip_score_names(),
                               tooltip="A whole CLIP model in models/clip_score: a folder as transformers saves it, or "
                                       "a .safetensors file. Scores of different models cannot be compared."),
                io.Combo.Input("definition", options=Definition, default=Definition.COSINE,
                               tooltip="The plain cosine, Hessel's 2.5 · max(cos, 0), or torchmetrics' 100 · "
                                       "max(cos, 0)."),
                io.Combo.Input("crop", options=ClipCrop, default=ClipCrop.CENTER, advanced=True,
                               tooltip="How pictures become square: the middle (center, the reference), all of it with "
                                       "bars (pad), or squeezed (squash). It changes the score."),
                io.String.Input("prefix", default="", advanced=True,
                                tooltip="Put before every text. Hessel et al. use \"A photo depicts \"."),
                io.String.Input("style", default="", advanced=True,
                                tooltip="A second text, such as the name of a style, that all pictures are scored "
                                        "against too."),
                io.Combo.Input("table_format", options=["text", "csv"], default="text", advanced=True,
                               tooltip="What the table output gives: aligned text, or comma-separated values."),
                io.Image.Input("references", optional=True,
                               tooltip="Pictures to compare with: the table then also has the mean likeness to them."),
            ],
            outputs=[
                sockets.Scores.Output(display_name="scores", tooltip="For Pick Best, Block Grid and Save Titled."),
                io.Float.Output(display_name="mean", tooltip="Mean score of the pictures."),
                io.String.Output(display_name="table", tooltip="One line a picture, with tokens used and cut."),
                io.Image.Output(display_name="annotated", is_output_list=True,
                                tooltip="The pictures with their score below."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: Any = None) -> bool | str:
        """Say before the run that the CLIP model is missing."""
        return verdict(host.clip_score_path, model[0] if model else None)

    @classmethod
    def fingerprint_inputs(cls, model: Any = None, **_: Any) -> str:
        """Change when the model's files do."""
        return host.disk_state(host.clip_score_path(model[0])) if model and model[0] else ""

    @classmethod
    def execute(cls, images: list[Any], text: list[str], model: list[str], definition: list[str], crop: list[str],
                prefix: list[str], style: list[str], table_format: list[str], references: list[Any] | None = None
                ) -> io.NodeOutput:
        """Load the model, score, and let the model go."""
        from ..atelier.score.annotate import annotate
        from ..atelier.score.load import open_scorer

        pictures = [picture for batch in images for picture in host.from_image_tensor(batch)]
        compared = [picture for batch in references or () for picture in host.from_image_tensor(batch)]
        scorer = open_scorer(host.clip_score_path(only(model)), crop=ClipCrop(only(crop)))
        with host.on_device(scorer.model):
            scores = scorer.score(pictures, one_each(text, images, "texts"), definition=Definition(only(definition)),
                                  prefix=only(prefix), style=only(style).strip(), references=compared,
                                  progress=host.HostProgress())
        table = scores.table()
        annotated = [host.to_image_tensor([picture]) for picture in annotate(pictures, scores)]
        return io.NodeOutput(scores, scores.mean, scores.csv() if only(table_format) == "csv" else table, annotated,
                             ui={"text": (table,), "bars": tuple(_bars(scores))})


def _bars(scores: Scores) -> list[dict[str, Any]]:
    """What the editor draws: for each picture its text and value."""
    return [{"label": f"{score.picture + 1} {score.text}", "value": score.value} for score in scores.items]


class PickBest(io.ComfyNode):
    """The best pictures by their score."""

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
        """Choose; the pictures' values stay as they are."""
        pictures, scored = singles(images), only(scores)
        if len(pictures) != len(scored.items):
            raise AtelierError(f"There are {len(pictures)} pictures and {len(scored.items)} scores.",
                               "Connect the very pictures that were scored.")
        best = scored.best(only(k))
        return io.NodeOutput([pictures[place] for place in best], scored.chosen(best))


NODES: list[type[io.ComfyNode]] = [ClipScore, PickBest]
