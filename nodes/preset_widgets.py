"""Widgets for values that a preset has too: they begin at "as preset" and override it only when they are changed.

Ids of widgets are the flat names of the library's training request. A value on which all presets agree is shown as it
is; where presets differ, a number shows -1 and a choice "as preset". So what a widget shows is what happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..atelier.train.request.presets import PRESETS
from ..atelier.train.request.request import FIELDS, RENAMED
from .widgets import arrow_step

AS_PRESET = "as preset"
AS_PRESET_NUMBER = -1

_HINT = " -1: as the preset has it."


def _shared(name: str) -> Any:
    """The value that all presets have; None where they differ."""
    name = RENAMED.get(name, name)
    values = [getattr(getattr(preset, FIELDS[name]), name) for preset in PRESETS.values()]
    return values[0] if all(value == values[0] for value in values) else None


def number(name: str, tooltip: str, *, step: float, by: float, high: float, low: float = 0, **more: Any) -> io.Input:
    """A widget for a number with decimals; its arrows move by `by`."""
    shared = _shared(name)
    if shared is None:
        low, shared, tooltip = AS_PRESET_NUMBER, float(AS_PRESET_NUMBER), tooltip + _HINT
    return io.Float.Input(name, default=shared, min=low, max=high, step=step, tooltip=tooltip, optional=True,
                          extra_dict=arrow_step(by), **more)


def count(name: str, tooltip: str, *, low: int = 0, high: int = 100_000, **more: Any) -> io.Input:
    """A widget for a whole number."""
    shared = _shared(name)
    if shared is None:
        low, shared, tooltip = AS_PRESET_NUMBER, AS_PRESET_NUMBER, tooltip + _HINT
    return io.Int.Input(name, default=shared, min=low, max=high, tooltip=tooltip, optional=True, **more)


def choice(name: str, options: tuple[str, ...], tooltip: str, **more: Any) -> io.Input:
    """A widget for one of several words."""
    shared = _shared(name)
    if shared is None:
        options, shared = (AS_PRESET, *options), AS_PRESET
    return io.Combo.Input(name, options=list(options), default=shared, tooltip=tooltip, optional=True, **more)


def switch(name: str, tooltip: str, **more: Any) -> io.Input:
    """A widget for yes or no, on which all presets agree."""
    return io.Boolean.Input(name, default=_shared(name), tooltip=tooltip, optional=True, **more)


def text(name: str, tooltip: str, *, multiline: bool = True, **more: Any) -> io.Input:
    """A widget for a text; an empty one is as the preset has it."""
    return io.String.Input(name, default="", multiline=multiline, tooltip=f"{tooltip} Empty: as the preset has it.",
                           optional=True, **more)


def changed(values: Mapping[str, Any]) -> dict[str, Any]:
    """What overrides the preset: the values of widgets that do not say "as preset"."""
    return {name: value for name, value in values.items()
            if value is not None and value not in ("", AS_PRESET)
            and not (value == AS_PRESET_NUMBER and not isinstance(value, bool))}
