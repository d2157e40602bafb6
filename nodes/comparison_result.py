"""Comparison Result, a part of Compare Models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from .comparison import FOLDER, NO_SCORE, PART_DESCRIPTION
from .host import device, folders
from .host.images import to_image_tensor
from .host.progress import HostProgress

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..atelier.compare.run import Comparison


class ComparisonResult(io.ComfyNode):
    """Scores the stored pictures, and draws grid, chart and tables."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierComparisonResult",
            display_name="Comparison Result",
            category="Atelier/compare",
            description=PART_DESCRIPTION,
            is_dev_only=True,
            is_output_node=True,
            inputs=[io.String.Input("plan", tooltip="Models, prompts, seeds and keys, as JSON."),
                    io.String.Input("score_model", default=NO_SCORE, tooltip="A CLIP model, or none."),
                    io.Int.Input("cell", default=256, tooltip="Longest side of the grid's pictures."),
                    io.AnyType.Input("after", optional=True, tooltip="The last picture that had to be made.")],
            outputs=[io.Image.Output(display_name="grid", tooltip="All pictures."),
                     io.Image.Output(display_name="chart", tooltip="Mean scores as bars."),
                     io.String.Output(display_name="table", tooltip="Ranking, times, memory."),
                     io.String.Output(display_name="csv", tooltip="One line a picture."),
                     io.Image.Output(display_name="pictures", tooltip="All pictures, one after another.")],
        )

    @classmethod
    def execute(cls, plan: str, score_model: str, cell: int, **_: Any) -> io.NodeOutput:
        """Read the pictures, score them and draw."""
        from PIL import Image

        from ..atelier.compare.picture import draw_bars, draw_grid
        from ..atelier.compare.table import csv_text, table
        from ..atelier.pictures.rgb import to_rgb

        request = json.loads(plan)
        folder = folders.work_folder(FOLDER)
        pictures: dict[Any, Any] = {}
        for *position, key in request["images"]:
            with Image.open(folder / f"{key}.png") as picture:
                pictures[tuple(position)] = to_rgb(picture)
        comparison = _score_pictures(request, pictures, folder, score_model)
        if "xy" in request:
            return _xy_result(cls, request["xy"], comparison, pictures, cell)
        grid = to_image_tensor([draw_grid(comparison, pictures, cell)])
        chart = to_image_tensor([draw_bars(comparison)])
        text = table(comparison)
        shown = ui.PreviewImage([*grid, *chart], cls=cls).as_dict()
        return io.NodeOutput(grid, chart, text, csv_text(comparison), to_image_tensor(list(pictures.values())),
                             ui={**shown, "text": (text,)})


def _xy_result(cls: type[io.ComfyNode], xy: dict[str, Any], comparison: Comparison,
               pictures: dict[tuple[int, int, int], Image], cell: int) -> io.NodeOutput:
    """The result of XY Grid, whose plan says which picture is which cell."""
    from ..atelier.compare.table import csv_text
    from ..atelier.compare.xy_grid import ScoredGrid, draw_xy

    cells = {(i, j): (m, p, s) for i, j, m, p, s in xy["cells"]}
    scores = {place: score for place, position in cells.items()
              if (score := comparison.image(*position).score) is not None}
    made = ScoredGrid(x_name=xy["x_name"], y_name=xy["y_name"], columns=tuple(xy["columns"]), rows=tuple(xy["rows"]),
                  scores=scores, scored_by=comparison.scored_by)
    grid = to_image_tensor([draw_xy(made, {place: pictures[position] for place, position in cells.items()}, cell)])
    text = made.table()
    return io.NodeOutput(grid, grid, text, csv_text(comparison), to_image_tensor([pictures[p] for p in cells.values()]),
                         ui={**ui.PreviewImage(grid, cls=cls).as_dict(), "text": (text,)})


def _score_pictures(request: dict[str, Any], pictures: dict[tuple[int, int, int], Image], folder: Path,
                    score_model: str) -> Comparison:
    from ..atelier.compare.run import Comparison, ComparisonImage
    from ..atelier.score.load import open_scorer

    scores: dict[tuple[int, int, int], float] = {}
    scored_by = ""
    if score_model != NO_SCORE:
        scorer = open_scorer(folders.clip_score_path(score_model))
        with device.on_device(scorer.model):
            result = scorer.score(list(pictures.values()), [request["prompts"][p] for _, p, _ in pictures],
                                  progress=HostProgress())
        scores = dict(zip(pictures, (item.value for item in result.items), strict=True))
        scored_by = f"{result.model}, {result.definition.value}, crop {result.crop.value}"
    images = []
    for model, prompt, seed, key in request["images"]:
        measured = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        images.append(ComparisonImage(model=model, prompt=prompt, seed=seed, score=scores.get((model, prompt, seed)),
                                      seconds=measured["seconds"], peak=measured["peak"],
                                      loading=measured["loading"]))
    return Comparison(tuple(request["models"]), tuple(request["prompts"]), tuple(request["seeds"]), tuple(images),
                      scored_by)
