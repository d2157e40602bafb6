"""Widget options that the pack's own scripts read: number widgets that keep all typed digits while their arrows move by
a useful step, lists of folders, and edited captions."""

from __future__ import annotations

ARROW_STEP = "arrow_step"
"""An entry of this pack in a widget's options, read by web/js/atelier.js."""


FOLDER_LIST = {"folder_list": True}
"""For `extra_dict` of a text widget that names a folder of pictures: web/js/atelier.js adds a list of them to the node,
and a button to upload pictures into one. The widget stays a text, which a link or a full path can give."""

CAPTION_EDITS = {"caption_edits": True}
"""For `extra_dict` of a text widget that the list of captions (web/js/dataset/caption_review.js) fills with what a
person changes in it, as JSON."""


def arrow_step(step: float) -> dict[str, float]:
    """A value for `extra_dict` of a number widget: how far one press of its arrows moves.

    The editor rounds a typed value to as many decimals as the widget's own `step` has (`round` cannot add any), and the
    arrows move by it too. So the widget's `step` is as fine as the values that people use, and the arrows get this one.
    """
    return {ARROW_STEP: step}
