"""CLIP Score: how well pictures match their texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..atelier.errors import AtelierError
from ..atelier.score.crop import ClipCrop
from ..atelier.score.definitions import Definition
from . import sockets
from .batching import one_each, single
from .host import device, folders
from .host.images import from_image_tensor, to_image_tensor
from .host.progress import HostProgress
from .validation import check

if TYPE_CHECKING:
    from ..atelier.score.result import Scores

NONE = "none"


class ClipScore(io.ComfyNode):
    """Scores how well pictures match their texts."""

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
                io.Combo.Input("model", options=folders.clip_score_names(),
                               tooltip="A whole CLIP model in models/clip_score: a folder as transformers saves it "
                                       "(also of SigLIP 2), or a weights file (also HPSv2.1's). Scores of different "
                                       "models cannot be compared."),
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
                io.Combo.Input("aesthetic_head", options=[NONE, *folders.clip_score_names()], default=NONE,
                               optional=True, advanced=True,
                               tooltip="A file of linear layers in models/clip_score that predicts how much people "
                                       "like a picture, about 1 to 10. It belongs to one CLIP model, mostly ViT-L/14."),
                io.Combo.Input("likeness_model", options=[NONE, *folders.clip_score_names()], default=NONE,
                               optional=True, advanced=True,
                               tooltip="A folder of DINO, DINOv2 or DINOv3 in models/clip_score that compares with the "
                                       "references: by shapes and textures, where CLIP compares what words say."),
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
    def validate_inputs(cls, model: Any = None, aesthetic_head: Any = None, likeness_model: Any = None) -> bool | str:
        """Report before the run that a model is missing."""
        for other in (aesthetic_head, likeness_model):
            if other and other[0] not in (None, NONE):
                found = check(folders.clip_score_path, other[0])
                if found is not True:
                    return found
        return check(folders.clip_score_path, model[0] if model else None)

    @classmethod
    def fingerprint_inputs(cls, model: Any = None, aesthetic_head: Any = None, likeness_model: Any = None, **_: Any
                           ) -> str:
        """Change when the models' files do."""
        names = [each[0] for each in (model, aesthetic_head, likeness_model) if each and each[0] not in (None, NONE)]
        return "\n".join(folders.disk_state(folders.clip_score_path(name)) for name in names)

    @classmethod
    def execute(cls, images: list[Any], text: list[str], model: list[str], definition: list[str], crop: list[str],
                prefix: list[str], style: list[str], table_format: list[str], references: list[Any] | None = None,
                aesthetic_head: list[str] | None = None, likeness_model: list[str] | None = None) -> io.NodeOutput:
        """Load the models, score, and free them."""
        from ..atelier.score.aesthetic import open_head
        from ..atelier.score.annotate import annotate
        from ..atelier.score.load import open_scorer
        from ..atelier.score.picture_model import open_picture_model

        pictures = [picture for batch in images for picture in from_image_tensor(batch)]
        reference_pictures = [picture for batch in references or () for picture in from_image_tensor(batch)]
        head, other = _chosen(aesthetic_head, open_head), _chosen(likeness_model, open_picture_model)
        if other and not reference_pictures:
            raise AtelierError(f"likeness_model is {single(likeness_model or [])!r}, but there are no references.",
                               "Connect pictures to references, or choose none.")
        scorer = open_scorer(folders.clip_score_path(single(model)), crop=ClipCrop(single(crop)))
        with device.on_device(scorer.model):
            scores = scorer.score(pictures, one_each(text, images, "texts"), definition=Definition(single(definition)),
                                  prefix=single(prefix), style=single(style).strip(), references=reference_pictures,
                                  likeness_by=other, aesthetic=head, progress=HostProgress())
        table = scores.table()
        annotated = [to_image_tensor([picture]) for picture in annotate(pictures, scores)]
        return io.NodeOutput(scores, scores.mean, scores.csv() if single(table_format) == "csv" else table, annotated,
                             ui={"text": (table,), "bars": tuple(_bars(scores))})


def _chosen(name: list[str] | None, load: Callable[[Path], Any]) -> Any:
    """The model that a widget names; None for none."""
    chosen = single(name) if name else NONE
    return None if chosen in (None, NONE) else load(folders.clip_score_path(chosen))


def _bars(scores: Scores) -> list[dict[str, Any]]:
    """Text and value of each picture, for the bars that the editor draws."""
    return [{"label": f"{score.picture + 1} {score.text}", "value": score.value} for score in scores.items]
