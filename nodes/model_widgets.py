"""Widgets that the nodes for models share."""

from __future__ import annotations

from comfy_api.latest import io

from ..atelier.convert.options import FOLDER_PRECISIONS, PRECISIONS, ConvertOptions

_OPTIONS = ConvertOptions()


def precision_input(*, folder: bool = False) -> io.Input:
    """The type of the written weights; of a diffusers folder, without those that only single files have."""
    tooltip = "Type of the written weights. keep copies them as they are, fp16 halves fp32."
    return io.Combo.Input("precision", options=list(FOLDER_PRECISIONS if folder else PRECISIONS),
                          default=_OPTIONS.precision, tooltip=tooltip if folder else
                          f"{tooltip} fp8 halves most of the UNet once more, a little less exactly.")


def prediction_input() -> io.Input:
    """The prediction type, to override what is detected."""
    return io.Combo.Input("prediction_type", options=["auto", "epsilon", "v_prediction"],
                          default=_OPTIONS.prediction_type, advanced=True,
                          tooltip="What the model predicts. Only few files say so; auto takes what is usual for the "
                                  "family.")
