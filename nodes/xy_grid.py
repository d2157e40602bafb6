"""XY Grid: one picture for each pair of values of two settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..atelier.compare.axes import Field, parse_axis, plan
from ..atelier.errors import AtelierError
from . import sockets
from .comparison import NO_SCORE, ComparisonRequest, file_states
from .comparison_graph import add_pictures
from .comparison_widgets import check_score_model, negative_input, picture_inputs, score_model_state
from .host import folders
from .host.graph import graph_builder, sampler_names, scheduler_names

if TYPE_CHECKING:
    from ..atelier.compare.compared_model import ComparedModel

_VALUES = ("One a line, or with commas; prompts one a line. In names of files * stands for anything: fox-* are all "
           "that begin with fox-. For LoRAs, none is the checkpoint alone.")


class XYGrid(io.ComfyNode):
    """Draws a grid of two settings."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        fields = [field.value for field in Field]
        return io.Schema(
            node_id="AtelierXYGrid",
            display_name="XY Grid",
            category="Atelier/compare",
            description="One picture for each pair of values of two settings: checkpoints, LoRAs, strength, guidance, "
                        "steps, sampler, seed, prompt. With scores, and their means by row and column. A run that was "
                        "cut short goes on with the cells it has.",
            search_aliases=["xy plot", "xyz", "grid", "sweep", "which step is best", "compare settings"],
            enable_expand=True,
            inputs=[
                sockets.ComparedModels.Input("models", tooltip="From one Model to Compare: all that no axis varies."),
                io.Combo.Input("x", options=fields[1:], default=Field.STRENGTH.value, tooltip="What the columns vary."),
                io.String.Input("x_values", multiline=True, default="0, 0.5, 1", tooltip=_VALUES),
                io.Combo.Input("y", options=fields, default=Field.SEED.value, tooltip="What the rows vary."),
                io.String.Input("y_values", multiline=True, default="0, 1", tooltip=_VALUES),
                io.String.Input("prompt", multiline=True, default="a cat wearing neon-glasses",
                                tooltip="The prompt, unless an axis varies it."),
                negative_input(),
                io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=False,
                             tooltip="The seed, unless an axis varies it."),
                *picture_inputs("pictures only"),
            ],
            outputs=[
                io.Image.Output(display_name="grid", tooltip="Columns are x, rows are y."),
                io.String.Output(display_name="table", tooltip="Scores, means by row and column, the best."),
                io.String.Output(display_name="csv", tooltip="One line a picture."),
                io.Image.Output(display_name="pictures", tooltip="All pictures, row by row."),
            ],
        )

    @classmethod
    def validate_inputs(cls, score_model: str | None = None) -> bool | str:
        """Report before the run that the CLIP model is missing."""
        return check_score_model(score_model)

    @classmethod
    def fingerprint_inputs(cls, score_model: str | None = None, x: str = "", y: str = "", **_: Any) -> str:
        """Change when the CLIP model's files do, or the files that an axis may name."""
        names = [name for field, kind in ((Field.CHECKPOINT, "checkpoints"), (Field.LORA, "loras"))
                 if field.value in (x, y) for name in folders.model_names(kind)]
        return "\n".join([score_model_state(score_model), *names])

    @classmethod
    def execute(cls, models: tuple[ComparedModel, ...], x: str, x_values: str, y: str, y_values: str, prompt: str,
                negative: str, seed: int, width: int, height: int, score_model: str, cell: int) -> io.NodeOutput:
        """Expand into nodes that draw the missing pictures, and one that gives the result."""
        from ..atelier.compare.compared_model import distinct

        if len(models) != 1:
            raise AtelierError(f"{len(models)} models arrive where one is taken.",
                               "Connect one Model to Compare, and name the others as the values of an axis.")
        if score_model != NO_SCORE:
            folders.clip_score_path(score_model)  # report a missing model now, not after the drawing
        names = {Field.CHECKPOINT: folders.model_names("checkpoints"), Field.LORA: folders.model_names("loras"),
                 Field.SAMPLER: sampler_names(), Field.SCHEDULER: scheduler_names()}
        made = plan(models[0], prompt.strip(), seed, parse_axis(Field(x), x_values, names),
                    parse_axis(Field(y), y_values, names))
        request = ComparisonRequest(made.prompts, negative, made.seeds, (width, height))
        states = [file_states(model) for model in made.models]
        keys = {(m, p, s): made.models[m].key(made.prompts[p], negative, s, request.size, states[m])
                for m, p, s in sorted(made.cells.values())}
        graph = graph_builder()
        last = add_pictures(graph, made.models, request, keys)
        result_plan = {
            "models": distinct([_name(model) for model in made.models]), "prompts": made.prompts, "seeds": made.seeds,
            "images": [[*position, keys[position]] for position in made.cells.values()],
            "xy": {"x_name": x, "y_name": y, "columns": made.x.labels, "rows": made.y.labels,
                   "cells": [[*place, *position] for place, position in made.cells.items()]}}
        result = graph.node("AtelierComparisonResult", plan=json.dumps(result_plan), score_model=score_model, cell=cell,
                            **({"after": last} if last else {}))
        return io.NodeOutput(*(result.out(slot) for slot in (0, 2, 3, 4)), expand=graph.finalize())


def _name(model: ComparedModel) -> str:
    return f"{model.name}, {model.steps} steps, cfg {model.cfg:g}, {model.sampler} {model.scheduler}"
