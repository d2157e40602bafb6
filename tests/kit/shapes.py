"""Pictures to train on, drawn on the spot: coloured shapes on plain grounds, each with a caption beside it."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"red": (220, 40, 40), "green": (40, 170, 70), "blue": (50, 80, 220), "yellow": (240, 200, 40)}
SHAPES = ("circle", "square", "triangle")


def draw_shapes(folder: Path, count: int = 4, size: int = 96, seed: int = 0) -> Path:
    """Fill `folder` with `count` pictures `00.png`, … and captions `00.txt`, …"""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    for number in range(count):
        shape, (colour, rgb) = chance.choice(SHAPES), chance.choice(sorted(COLOURS.items()))
        image = Image.new("RGB", (size, size), tuple(chance.randrange(160, 256) for _ in range(3)))
        box = [chance.randrange(size // 4), chance.randrange(size // 4), chance.randrange(size // 2, size),
               chance.randrange(size // 2, size)]
        draw = ImageDraw.Draw(image)
        if shape == "circle":
            draw.ellipse(box, fill=rgb)
        elif shape == "square":
            draw.rectangle(box, fill=rgb)
        else:
            draw.polygon([(box[0], box[3]), (box[2], box[3]), ((box[0] + box[2]) // 2, box[1])], fill=rgb)
        image.save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(f"a {colour} {shape}", encoding="utf-8")
    return folder
