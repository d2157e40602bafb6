"""Widgets that the nodes for models share."""

from __future__ import annotations

from comfy_api.latest import io

from ..atelier.convert.options import PRECISIONS, ConvertOptions

_OPTIONS = ConvertOptions()


def precision_input() -> io.Input:
    """The type of the written weights."""
    return io.Combo.Input("precision", options=list(PRECISIONS), default=_OPTIONS.precision,
                          tooltip="Type of the written weights. keep copies them as they are, fp16 halves fp32.")


def prediction_input() -> io.Input:
    """The prediction type, to override what is detected."""
    return io.Combo.Input("prediction_type", options=["auto", "epsilon", "v_prediction"],
                          default=_OPTIONS.prediction_type, advanced=True,
                          tooltip="What the model predicts. Only few files say so; auto takes what is usual for the "
                                  "family.")
