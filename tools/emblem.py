"""Draw the icon and the banner that ComfyUI's registry shows: docs/images/icon.png and docs/images/banner.png.

    python tools/emblem.py

Both are Block Grids of the demo's drawings, one pencil sketch in each block, as the pack's own graphs make them.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from PIL import Image  # noqa: E402 - the path is set just above

from atelier.demo.drawing import Spec, Style, draw  # noqa: E402
from atelier.pictures.labels import strip  # noqa: E402

FOLDER = ROOT / "docs" / "images"
ICON, BANNER = FOLDER / "icon.png", FOLDER / "banner.png"
SIDE = 400
"""The registry's largest icon."""
WIDE = (1260, 540)
"""21:9."""
PAPER, INK, FAINT = (24, 26, 32), (240, 240, 236), (168, 172, 180)
BLOCK: tuple[tuple[Spec, Style], ...] = (
    (Spec(shape="star", color="orange", background="blue"), "plain"),
    (Spec(shape="ring", color="red", background="white", seed=3), "pencil"),
    (Spec(shape="triangle", color="green", background="pink"), "plain"),
    (Spec(shape="circle", color="yellow", background="brown"), "plain"),
)
SECOND: tuple[tuple[Spec, Style], ...] = (
    (Spec(shape="cross", color="white", background="green"), "plain"),
    (Spec(shape="square", color="purple", background="grey"), "plain"),
    (Spec(shape="circle", color="red", background="black"), "plain"),
    (Spec(shape="star", color="blue", background="white", seed=5), "pencil"),
)
NAME, LINE = "Atelier", "Convert, fine-tune, prompt, generate and score in one ComfyUI graph"


def block(pictures: tuple[tuple[Spec, Style], ...], side: int, gap: int) -> Image.Image:
    """Four pictures, two by two, on a square of `side` pixels with a margin of `gap`."""
    square = Image.new("RGB", (side, side), PAPER)
    cell = (side - 3 * gap) // 2
    for number, (spec, style) in enumerate(pictures):
        square.paste(draw(spec, style, cell), tuple(gap + (cell + gap) * part for part in (number % 2, number // 2)))
    return square


def icon() -> Image.Image:
    """The icon."""
    return block(BLOCK, SIDE, 16)


def banner() -> Image.Image:
    """The banner: two blocks, the name, and what the pack does."""
    width, height = WIDE
    wide = Image.new("RGB", WIDE, PAPER)
    side, gap = 330, 14
    for number, pictures in enumerate((BLOCK, SECOND)):
        wide.paste(block(pictures, side, gap), (40 + number * (side + 2), (height - side) // 2))
    left = 40 + 2 * side + 30
    room = width - left - 40
    wide.paste(strip(NAME, room, 130, ink=INK, paper=PAPER), (left, 150))
    wide.paste(strip(LINE, room, 100, ink=FAINT, paper=PAPER), (left, 290))
    return wide


def main() -> int:
    """Write both."""
    for path, picture in ((ICON, icon()), (BANNER, banner())):
        picture.save(path, optimize=True)
        print(f"{path}: {picture.width} × {picture.height}, {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
