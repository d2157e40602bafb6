"""Number widgets keep the values that people use: the editor rounds a value to the decimals of `step`."""

from __future__ import annotations

import math
from dataclasses import asdict
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
from kit.pack import node_classes, pack_module

from tools import record_nodes

pytestmark = pytest.mark.host

RATES = (1e-3, 5e-4, 1e-4, 2.5e-5, 1.5e-5, 5e-6, 1e-6, 5e-7, 1.0)
DECAYS = (0.9, 0.95, 0.99, 0.999, 0.9995, 0.9999)
STRENGTHS = (0.0, 0.35, 0.5, 0.75, 0.85, 1.0)
CFG = (1.0, 1.5, 3.75, 5.5, 7.0, 7.25)
PRICES = (0.15, 0.6, 2.5, 0.075, 0.0375, 15.0)
USUAL: dict[str, tuple[float, ...]] = {
    "learning_rate": RATES, "text_learning_rate": RATES, "beta1": DECAYS, "beta2": DECAYS, "ema_decay": DECAYS,
    "weight_decay": (0.01, 0.001, 1e-4, 5e-4, 1e-5), "min_delta": (0.01, 0.001, 5e-4, 1e-4),
    "noise_offset": (0.03, 0.035, 0.0357, 0.1), "min_snr_gamma": (0.5, 1.0, 2.5, 5.0, 20.0, 0.25),
    "max_grad_norm": (0.05, 0.1, 0.25, 1.0, 10.0), "prior_weight": (0.05, 0.5, 1.0, 0.125),
    "caption_dropout": (0.001, 0.025, 0.05, 0.1), "dropout": (0.025, 0.05, 0.1, 0.125),
    "alpha": (0.25, 1.0, 12.5, 16.0),
    "max_aspect": (1.5, 1.75, 1.78, 2.25, 2.35), "sample_cfg": CFG, "cfg": CFG, "strength": STRENGTHS,
    "strength_model": STRENGTHS, "strength_clip": STRENGTHS, "temperature": (0.7, 0.75, 1.0, 1.25),
    "first_strength": (*STRENGTHS, -0.5), "second_strength": (*STRENGTHS, -0.5), "share": (0.5, 0.9, 0.95, 0.995),
    "tag_dropout": (0.05, 0.1, 0.25), "sharpness": (0.5, 1.0, 2.5, 10.0), "enlarged": (1.25, 1.5, 2.0, 4.0),
    "guidance": (0.0, 1.0, 2.5, 3.5, 4.25), "shift_value": (1.0, 1.15, 2.02, 3.0, 3.1582),
    "timeout": (30.0, 60.0, 120.0), "price_in": PRICES, "price_out": PRICES,
}


def float_widgets(pack: ModuleType) -> list[tuple[str, Any]]:
    """Every FLOAT widget, with its node's id."""
    widgets = [(name, widget) for name, node in node_classes(pack).items()
             for widget in node.GET_SCHEMA().inputs  # pyright: ignore[reportAttributeAccessIssue]
             if widget.io_type == "FLOAT" and not widget.force_input]
    assert len(widgets) > 20
    return widgets


def rounded(widget: Any, value: float) -> float:
    """A typed value as the editor rounds it (frontend 1.49.6, useFloatWidget.ts); a step without decimals keeps it."""
    step = widget.step or 0.5
    decimals = max(0, -math.floor(math.log10(step)))
    return round(value, decimals) if decimals else value


def test_widgets_keep_usual_values_and_defaults(pack: ModuleType) -> None:
    for node, widget in float_widgets(pack):
        for value in (widget.default, *USUAL[widget.id]):
            assert widget.min <= value <= widget.max
            assert rounded(widget, value) == value, f"{node}: {widget.id} rounds {value} to {rounded(widget, value)}"


def test_widgets_are_as_recorded(pack: ModuleType) -> None:
    """A workflow without a widget gets its default, and one with a value that was taken goes on being taken."""
    now = record_nodes.widgets({name: {"input": node.INPUT_TYPES()}  # pyright: ignore[reportAttributeAccessIssue]
                                for name, node in node_classes(pack).items()})
    changed = {name: (facts, now.get(name)) for name, facts in record_nodes.recorded_widgets().items()
               if now.get(name) != facts}
    assert not changed, f"recorded, and now; see tools/record_nodes.py: {changed}"


def test_widgets_keep_every_preset(pack: ModuleType) -> None:
    widgets = {widget.id: widget for node, widget in float_widgets(pack)
               if node in ("AtelierLoraConfig", "AtelierTrainingOptions")}
    for name, preset in pack_module(pack, "atelier.train.request.presets").PRESETS.items():
        values = {option: value for part in asdict(preset).values() if isinstance(part, dict)
                  for option, value in part.items()}
        for key, widget in widgets.items():
            assert rounded(widget, values[key]) == values[key], f"{name}: {key}"


def test_arrows_move_by_whole_steps(pack: ModuleType) -> None:
    """Otherwise the editor would round the result of an arrow. Rates move by more than their finest decimal."""
    steps = {widget.id: widget.as_dict()["arrow_step"] for _, widget in float_widgets(pack)
             if "arrow_step" in widget.as_dict()}
    assert steps["learning_rate"] == 1e-5 and steps["ema_decay"] == 0.001
    for node, widget in float_widgets(pack):
        if widget.id in steps:
            assert Decimal(str(steps[widget.id])) % Decimal(str(widget.step)) == 0, f"{node}: {widget.id}"
