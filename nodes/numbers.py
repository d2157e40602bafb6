"""Number widgets that keep what is typed and still move by useful steps."""

from __future__ import annotations

ARROW_STEP = "arrow_step"
"""The pack's own entry in a widget's options, read by web/js/atelier.js."""


def arrows(step: float) -> dict[str, float]:
    """For `extra_dict` of a number: how far one press of its arrows goes.

    The editor cuts what is typed to as many decimals as `step` has (`round` cannot give it more), and moves the arrows
    by that `step` too. So `step` is as fine as the values that people use, and the arrows have a step of their own.
    """
    return {ARROW_STEP: step}
