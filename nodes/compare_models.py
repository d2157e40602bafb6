"""Compare Models: the same prompts and seeds with several models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..atelier.errors import AtelierError
from . import sockets
from .comparison import NO_SCORE, ComparisonRequest, file_states
from .comparison_graph import add_pictures
from .comparison_widgets import check_score_model, negative_input, picture_inputs, score_model_state
from .host import folders
from .host.graph import graph_builder

if TYPE_CHECKING:
    from ..atelier.compare.compared_model import ComparedModel


class CompareModels(io.ComfyNode):
    """Compares models × prompts × seeds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierCompareModels",
            display_name="Compare Models",
            category="Atelier/compare",
            description="Draws the same prompts and seeds with several models, one model after another, and ranks "
                        "them by CLIP score, telling differences from noise. A run that was cut short goes on with "
                        "the pictures it has.",
            search_aliases=["xy plot", "benchmark", "clip score", "model sweep", "grid", "rank"],
            enable_expand=True,
            inputs=[
                sockets.ComparedModels.Input("models", tooltip="From a chain of Model to Compare."),
                io.String.Input("prompts", multiline=True, default="a cat wearing neon-glasses",
                                tooltip="One prompt a line."),
                negative_input(),
                io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=False,
                             tooltip="The first seed."),
                io.Int.Input("seeds", default=3, min=1, max=1000,
                             tooltip="How many seeds for each prompt: seed, seed + 1, … Prompts times seeds: to show a "
                                     "difference takes 6 pictures of each of two models, 7 of three or four, 8 of "
                                     "five to seven."),
                *picture_inputs("pictures and times only"),
            ],
            outputs=[
                io.Image.Output(display_name="grid", tooltip="One column a model, one row a prompt and seed."),
                io.Image.Output(display_name="chart", tooltip="Mean scores as bars; seconds without scores."),
                io.String.Output(display_name="table", tooltip="Ranking, times, memory, means by prompt."),
                io.String.Output(display_name="csv", tooltip="One line a picture."),
                io.Image.Output(display_name="pictures", tooltip="All pictures: by model, then prompt, then seed."),
            ],
        )

    @classmethod
    def validate_inputs(cls, score_model: str | None = None) -> bool | str:
        """Report before the run that the CLIP model is missing."""
        return check_score_model(score_model)

    @classmethod
    def fingerprint_inputs(cls, score_model: str | None = None, **_: Any) -> str:
        """Change when the CLIP model's files do."""
        return score_model_state(score_model)

    @classmethod
    def execute(cls, models: tuple[ComparedModel, ...], prompts: str, negative: str, seed: int, seeds: int, width: int,
                height: int, score_model: str, cell: int) -> io.NodeOutput:
        """Expand into nodes that draw the missing pictures, and one that gives the result."""
        from ..atelier.compare.compared_model import distinct

        if score_model != NO_SCORE:
            folders.clip_score_path(score_model)  # report a missing model now, not after the drawing
        texts = tuple(dict.fromkeys(line.strip() for line in prompts.splitlines() if line.strip()))
        if not texts:
            raise AtelierError("There are no prompts to compare with.", "Write at least one line.")
        request = ComparisonRequest(texts, negative, tuple(range(seed, seed + seeds)), (width, height))
        states = [file_states(model) for model in models]
        keys = {(m, p, s): model.key(text, negative, s, request.size, states[m]) for m, model in enumerate(models)
                for p, text in enumerate(texts) for s in request.seeds}
        graph = graph_builder()
        last = add_pictures(graph, models, request, keys)
        plan = {"models": distinct([model.name for model in models]), "prompts": texts, "seeds": request.seeds,
                "images": [[*position, key] for position, key in keys.items()]}
        result = graph.node("AtelierComparisonResult", plan=json.dumps(plan), score_model=score_model, cell=cell,
                            **({"after": last} if last else {}))
        return io.NodeOutput(*(result.out(slot) for slot in range(5)), expand=graph.finalize())
