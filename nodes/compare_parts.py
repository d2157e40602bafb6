"""What Compare Models is made of beside the host's own nodes. They are not meant to be placed by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from . import host
from .compare import FOLDER, NO_SCORE
from .measuring import peak_memory, reset_peak_memory

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..atelier.compare.run import Comparison

_NOTE = "A part of Compare Models, which places it by itself."


class ComparisonGate(io.ComfyNode):
    """Hands a value on when others are ready, and starts the clock."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierComparisonGate",
            display_name="Comparison Gate",
            category="Atelier/compare",
            description=_NOTE,
            is_dev_only=True,
            inputs=[
                io.AnyType.Input("value", tooltip="What is handed on."),
                io.AnyType.Input("after", optional=True, tooltip="What must be done before."),
                io.Model.Input("model", optional=True, tooltip="What must be loaded before."),
                io.Conditioning.Input("positive", optional=True, tooltip="What must be encoded before."),
                io.Conditioning.Input("negative", optional=True, tooltip="What must be encoded before."),
                io.Boolean.Input("alone", default=False, optional=True,
                                 tooltip="Other models leave the device first, so that they are not measured with it."),
            ],
            outputs=[io.AnyType.Output(display_name="value", tooltip="The value."),
                     io.Float.Output(display_name="started", tooltip="The clock, in seconds.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        """Never take an earlier run's time from the cache."""
        return time.monotonic()

    @classmethod
    def execute(cls, value: Any, alone: bool = False, **_: Any) -> io.NodeOutput:
        """Note the time."""
        reset_peak_memory(alone=alone)
        return io.NodeOutput(value, time.monotonic())


class ComparisonPicture(io.ComfyNode):
    """Keeps a picture and what it cost."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierComparisonPicture",
            display_name="Comparison Picture",
            category="Atelier/compare",
            description=_NOTE,
            is_dev_only=True,
            inputs=[io.Image.Input("image", tooltip="The picture."),
                    io.Float.Input("started", force_input=True, tooltip="When its sampling began."),
                    io.String.Input("key", tooltip="Name to keep it under."),
                    io.Boolean.Input("loading", default=False, optional=True,
                                     tooltip="Whether the model was on its way to the device in this time.")],
            outputs=[io.AnyType.Output(display_name="done", tooltip="For the next gate.")],
        )

    @classmethod
    def execute(cls, image: Any, started: float, key: str, loading: bool = False) -> io.NodeOutput:
        """Write the measurements, then the picture: where there is a picture, there are measurements."""
        from ..atelier.files import atomic_file, write_json

        seconds = time.monotonic() - started
        folder = host.work_folder(FOLDER)
        write_json(folder / f"{key}.json", {"seconds": seconds, "loading": loading, "peak": peak_memory()})
        with atomic_file(folder / f"{key}.png") as part:
            host.from_image_tensor(image)[0].save(part, format="PNG", compress_level=1)
        return io.NodeOutput(key)


class ComparisonResult(io.ComfyNode):
    """Scores, grid, chart and tables of the kept pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierComparisonResult",
            display_name="Comparison Result",
            category="Atelier/compare",
            description=_NOTE,
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
        """Read, score and draw."""
        from PIL import Image

        from ..atelier.compare.picture import draw_bars, draw_grid
        from ..atelier.compare.table import csv_text, table

        wanted = json.loads(plan)
        folder = host.work_folder(FOLDER)
        pictures: dict[Any, Any] = {}
        for *place, key in wanted["shots"]:
            with Image.open(folder / f"{key}.png") as picture:
                pictures[tuple(place)] = picture.convert("RGB")
        comparison = _compared(wanted, pictures, folder, score_model)
        grid = host.to_image_tensor([draw_grid(comparison, pictures, cell)])
        chart = host.to_image_tensor([draw_bars(comparison)])
        text = table(comparison)
        shown = ui.PreviewImage([*grid, *chart], cls=cls).as_dict()
        return io.NodeOutput(grid, chart, text, csv_text(comparison), host.to_image_tensor(list(pictures.values())),
                             ui={**shown, "text": (text,)})


def _compared(wanted: dict[str, Any], pictures: dict[tuple[int, int, int], Image], folder: Path,
              score_model: str) -> Comparison:
    from ..atelier.compare.run import Comparison, ComparisonImage
    from ..atelier.score.load import open_scorer

    scores: dict[tuple[int, int, int], float] = {}
    scored_by = ""
    if score_model != NO_SCORE:
        scorer = open_scorer(host.clip_score_path(score_model))
        with host.on_device(scorer.model):
            found = scorer.score(list(pictures.values()), [wanted["prompts"][p] for _, p, _ in pictures],
                                 progress=host.HostProgress())
        scores = dict(zip(pictures, (item.value for item in found.items), strict=True))
        scored_by = f"{found.model}, {found.definition.value}, crop {found.crop.value}"
    shots = []
    for model, prompt, seed, key in wanted["shots"]:
        measured = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        shots.append(ComparisonImage(model=model, prompt=prompt, seed=seed, score=scores.get((model, prompt, seed)),
                                     seconds=measured["seconds"], peak=measured["peak"], loading=measured["loading"]))
    return Comparison(tuple(wanted["models"]), tuple(wanted["prompts"]), tuple(wanted["seeds"]), tuple(shots),
                      scored_by)


NODES: list[type[io.ComfyNode]] = [ComparisonGate, ComparisonPicture, ComparisonResult]
