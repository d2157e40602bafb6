"""What the library draws looks as it did when somebody last looked at it.

To the last pixel where letters are drawn by the same version of Pillow as the stored pictures, else nearly.
"""

from __future__ import annotations

import numpy as np
import pytest
from kit.drawn import DRAWN, RASTERISER, STORED, rasteriser
from PIL import Image

HINT = "if it should look so: PYTHONPATH=tests:. python tests/kit/drawn.py, and look at the pictures"


def test_a_picture_is_stored_of_each_kind() -> None:
    assert {path.stem for path in STORED.glob("*.png")} == DRAWN.keys()


@pytest.mark.parametrize("name", DRAWN)
def test_it_looks_as_it_did(name: str) -> None:
    drawn = DRAWN[name]()
    with Image.open(STORED / f"{name}.png") as stored:
        same_letters = stored.info[RASTERISER] == rasteriser()
        wanted = np.asarray(stored.convert("RGB")).astype(int)
    assert drawn.mode == "RGB" and drawn.size == wanted.shape[1::-1], HINT
    far = np.abs(np.asarray(drawn).astype(int) - wanted).max(axis=-1)
    assert (not far.any()) if same_letters else (far > 64).mean() < 0.02, HINT
