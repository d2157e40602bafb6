"""Random masks for inpainting models: the parts of a training picture that the model is to fill in.

An inpainting model is trained with masks that nobody painted: boxes, ellipses and strokes of a broad brush at random
places, as in Suvorov et al. 2021 (LaMa, https://arxiv.org/abs/2109.07161, section 2.4), and now and then the whole
picture, which keeps text to image (https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-inpainting). They have
nothing to do with loss masks, which say where the loss counts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Canvas = tuple[ImageDraw.ImageDraw, int, int]
"""What is drawn on, its width and its height."""


def inpaint_masks(name: str, width: int, height: int, count: int) -> NDArray[np.uint8]:
    """`count` masks, [count, height, width]: 1 where the model fills in, 0 where it sees the picture.

    The first hides the whole picture; each further one hides a part, at least one pixel of it.

    Args:
        name: Decides them, with the size and the number of each: equal names give equal masks.
        width: Pixels.
        height: Pixels.
        count: At least 1.
    """
    masks = [np.ones((height, width), np.uint8)]
    for number in range(1, count):
        chance = random.Random(f"atelier inpainting/{name}/{number}")
        picture = Image.new("L", (width, height), 0)
        canvas = (ImageDraw.Draw(picture), width, height)
        draw = chance.choice(_KINDS)
        for _ in range(chance.randint(1, 3)):
            draw(canvas, chance)
        masks.append(np.asarray(picture, np.uint8))
    return np.stack(masks)


def _box(canvas: Canvas, chance: random.Random) -> None:
    canvas[0].rectangle(_corners(canvas, chance), fill=1)


def _ellipse(canvas: Canvas, chance: random.Random) -> None:
    canvas[0].ellipse(_corners(canvas, chance), fill=1)


def _stroke(canvas: Canvas, chance: random.Random) -> None:
    """A brush that goes on in almost its direction, and is lifted after a few turns."""
    draw, width, height = canvas
    side = min(width, height)
    brush = max(2, round(side * chance.uniform(1 / 16, 1 / 6)))
    x, y, angle = chance.uniform(0, width - 1), chance.uniform(0, height - 1), chance.uniform(0, math.tau)
    for _ in range(chance.randint(2, 6)):
        angle += chance.uniform(-math.pi / 2, math.pi / 2)
        length = side * chance.uniform(1 / 8, 1 / 2)
        end = (min(max(x + length * math.cos(angle), 0), width - 1), min(max(y + length * math.sin(angle), 0),
                                                                         height - 1))
        draw.line((x, y, *end), fill=1, width=brush)
        for center in ((x, y), end):
            draw.ellipse([place + brush / 2 * sign for sign in (-1, 1) for place in center], fill=1)
        x, y = end


def _corners(canvas: Canvas, chance: random.Random) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a box of an eighth to two thirds of each side."""
    _, width, height = canvas
    across, down = (side * chance.uniform(1 / 8, 2 / 3) for side in (width, height))
    left, top = chance.uniform(0, width - across), chance.uniform(0, height - down)
    return left, top, left + across, top + down


_KINDS: tuple[Callable[[Canvas, random.Random], None], ...] = (_box, _ellipse, _stroke)
