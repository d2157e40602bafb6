"""Comparison Gate, a part of Compare Models."""

from __future__ import annotations

import time
from typing import Any

from comfy_api.latest import io

from .comparison import PART_DESCRIPTION
from .host.peak_memory import reset_peak_memory


class ComparisonGate(io.ComfyNode):
    """Passes a value on once the other inputs are ready, and starts the clock."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierComparisonGate",
            display_name="Comparison Gate",
            category="Atelier/compare",
            description=PART_DESCRIPTION,
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
        """Never let the host reuse the time of an earlier run."""
        return time.monotonic()

    @classmethod
    def execute(cls, value: Any, alone: bool = False, **_: Any) -> io.NodeOutput:
        """Reset the memory statistics and return the time."""
        reset_peak_memory(alone=alone)
        return io.NodeOutput(value, time.monotonic())
