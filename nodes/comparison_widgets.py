"""Widgets that Compare Models and XY Grid share: size of the pictures, the CLIP model that scores them, the cells."""

from __future__ import annotations

from comfy_api.latest import io

from .comparison import NO_SCORE
from .host import folders
from .validation import check


def negative_input() -> io.Input:
    """The negative prompt."""
    return io.String.Input("negative", multiline=True, default="low quality, blurry",
                           tooltip="The negative prompt of all.")


def picture_inputs(without_score: str) -> list[io.Input]:
    """Size, score and cells; `without_score` says what is left where nothing scores."""
    return [
        io.Int.Input("width", default=512, min=64, max=8192, step=8, tooltip="Width of the pictures."),
        io.Int.Input("height", default=512, min=64, max=8192, step=8, tooltip="Height of the pictures."),
        io.Combo.Input("score_model", options=[NO_SCORE, *folders.clip_score_names()], default=NO_SCORE,
                       tooltip=f"A CLIP model in models/clip_score, or none for {without_score}."),
        io.Int.Input("cell", default=256, min=0, max=4096, step=8, advanced=True,
                     tooltip="Longest side of the grid's pictures in pixels. 0: their own size."),
    ]


def check_score_model(name: str | None) -> bool | str:
    """For `validate_inputs`: True, or that the CLIP model is missing."""
    return name == NO_SCORE or check(folders.clip_score_path, name)


def score_model_state(name: str | None) -> str:
    """For `fingerprint_inputs`: changes when the CLIP model's files do; "" where nothing scores."""
    return "" if not name or name == NO_SCORE else folders.disk_state(folders.clip_score_path(name))
