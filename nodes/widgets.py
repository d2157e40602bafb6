"""Widget options: number widgets that keep all typed digits while their arrows move by a useful step."""

from __future__ import annotations

ARROW_STEP = "arrow_step"
"""An entry of this pack in a widget's options, read by web/js/atelier.js."""


def arrow_step(step: float) -> dict[str, float]:
    """A value for `extra_dict` of a number widget: how far one press of its arrows moves.

    The editor rounds a typed value to as many decimals as the widget's own `step` has (`round` cannot add any), and the
    arrows move by it too. So the widget's `step` is as fine as the values that people use, and the arrows get this one.
    """
    return {ARROW_STEP: step}
