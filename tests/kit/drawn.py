"""Every kind of picture that the library draws itself, from fixed inputs, and the stored ones they are compared with.

    PYTHONPATH=tests:. python tests/kit/drawn.py    # draw the stored ones anew: look at them before they are committed
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from atelier.captions.review_sheet import review_sheet
from atelier.compare.picture import draw_bars, draw_grid
from atelier.compare.run import Comparison, ComparisonImage
from atelier.compare.xy_grid import ScoredGrid, draw_xy
from atelier.dataset.preview import contact_sheet
from atelier.dataset.types import Crop, Resolution, Sample, TrainingSet
from atelier.explain.denoising import ROWS, Step, draw_strip
from atelier.explain.token_picture import draw_tokens
from atelier.explain.tokens import Token, TokenTable
from atelier.grid.compose import Fit, compose
from atelier.grid.layout import Gaps, Layout, Placement, arrange
from atelier.pictures.side_by_side import side_by_side
from atelier.train.history import History
from atelier.train.plot import loss_plot
from atelier.train.run_folder import RoundScore

STORED = Path(__file__).resolve().parent.parent / "data" / "drawn"
RASTERISER = "rasteriser"


def rasteriser() -> str:
    """What letters look like depends on it."""
    from PIL import __version__

    return f"Pillow {__version__}, FreeType {features.version('freetype2')}, Raqm {features.check('raqm')}"


def ramp(size: tuple[int, int], seed: int) -> Image.Image:
    """A picture of its own with structure in both directions: two ramps and a block."""
    across, down = np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1])
    values = np.stack([np.broadcast_to(across, size[::-1]), np.broadcast_to(down[:, None], size[::-1]),
                       np.full(size[::-1], seed * 37 % 256)], axis=-1).astype(np.uint8)
    values[size[1] // 4:size[1] // 2, size[0] // 4:size[0] // 3] = (255, 64, 255 - seed * 20 % 256)
    return Image.fromarray(values)


# --- training -------------------------------------------------------------------------------------------------------

def plot_of_losses() -> Image.Image:
    losses = [0.2 + 0.6 * math.exp(-i / 80) + 0.05 * math.sin(i) for i in range(1500)]
    looks = [(step, 0.25 + 0.5 * math.exp(-step / 300) + step / 9000) for step in range(100, 1501, 100)]
    scores = {step: RoundScore(0.2 + step / 9000, 0.5 + step / 4000) for step in range(0, 1501, 500)}
    return loss_plot(History(losses, validation=looks), title="my-lora · 1500 steps", scores=scores, best_step=900,
                     steps_per_epoch=300)


def plot_of_epochs() -> Image.Image:
    return loss_plot(History([0.5, 0.4, 0.45, 0.3], epochs=[(2, 0.45), (4, 0.375)]), title="epochs", width=480,
                     height=300)


def sheet(folder: Path) -> Image.Image:
    own = Resolution(256, Crop.PAD)
    captions: tuple[tuple[str, ...], ...] = (
        ("a cat in the snow",), ("one", "another"), ("a very long caption that goes on and on " * 8,), ("wide",),
        ("prior",), ("padded",), ("a_single_word_that_is_wider_than_a_cell_and_is_cut_with_dots",), ("left out",))
    sizes = (300, 200), (200, 300), (512, 512), (640, 160), (256, 256), (200, 100), (128, 128), (100, 100)
    samples = []
    for number, (texts, size) in enumerate(zip(captions, sizes, strict=True)):
        path = folder / f"{number}.png"
        ramp(size, number).save(path)
        samples.append(Sample(image=path, captions=texts, digest=str(number), size=size))
    samples[1] = replace(samples[1], repeats=3, mask=samples[0].image, mask_digest="0")
    samples[4] = replace(samples[4], prior=True)
    samples[5] = replace(samples[5], resolution=own)
    data = TrainingSet(samples=tuple(samples), resolution=Resolution(256, Crop.BUCKET), flip=True,
                       skipped=(folder / "broken.png",))
    return contact_sheet(data, limit=7, columns=3, marks={samples[3].image: "blurred, and a duplicate of another one"})


def review(folder: Path) -> Image.Image:
    paths = []
    for number, size in enumerate([(64, 32), (32, 64), (200, 200), *[(40, 40)] * 9]):
        paths.append(folder / f"{number}.png")
        ramp(size, number).save(paths[-1])
    return review_sheet(paths)


# --- comparing ------------------------------------------------------------------------------------------------------

def compared(scored: bool) -> Comparison:
    models = ("plain", "tuned, with a very long name that goes on and on and on", "again")
    images = tuple(ComparisonImage(model=m, prompt=p, seed=s, seconds=None if m == 2 else 0.5 + m,
                                   score=0.2 + 0.05 * m + 0.01 * p + 0.003 * s * (-1) ** m if scored else None)
                   for m in range(3) for p in range(3) for s in (7, 8))
    return Comparison(models, ("a cat", "a dog that runs through deep snow", "x"), (7, 8), images,
                      "clip, cosine" if scored else "")


def comparison(scored: bool, cell: int) -> Image.Image:
    made = compared(scored)
    return draw_grid(made, {(i.model, i.prompt, i.seed): ramp((160, 120), i.model + 3 * i.prompt + i.seed)
                            for i in made.images}, cell)


def xy(scored: bool, cell: int) -> Image.Image:
    cells = {(i, j): 0.21 + 0.01 * i - 0.02 * j for i in range(3) for j in range(2)}
    grid = ScoredGrid(x_name="strength", y_name="steps", columns=("0", "0.5", "1, which is the whole of it"),
                      rows=("10", "20 steps of the sampler"), scores=cells if scored else {})
    return draw_xy(grid, {place: ramp((120, 160), place[0] + 3 * place[1]) for place in cells}, cell)


# --- explaining -----------------------------------------------------------------------------------------------------

def denoising(cell: int, columns: int, rows: tuple[str, ...]) -> Image.Image:
    size = (120, 80)
    bumps = np.add.outer(np.linspace(0, 1, 10), np.linspace(0, 2, 15))
    steps = [Step(number=i + 1, sigma=14.6 / (i + 1), timestep=None if i == 4 else 999.0 - 200 * i,
                  prediction=ramp(size, i), noisy=ramp(size, i + 7), guidance=bumps * (i + 1)) for i in range(5)]
    return draw_strip(steps, ramp(size, 11), rows=rows, cell=cell, columns=columns)


def tokens() -> Image.Image:
    words = ["a</w>", "photo</w>", "neo", "n</w>", "extraordinarily_long_entry_of_a_vocabulary</w>"] * 4
    weights = [1.0, 1.1, 1.5, 2.0, 0.9, 0.5, 0.1] * 3
    return draw_tokens(TokenTable(tuple(
        Token(id=None if i == 3 else i, entry=word, weight=weights[i], chunk=int(i > 16))
        for i, word in enumerate(words)), ("clip_l",)), width=520)


# --- composing ------------------------------------------------------------------------------------------------------

def blocks(fit: Fit, background: tuple[int, int, int], placement: Placement, caption_height: int) -> Image.Image:
    layout = Layout(rows=2, columns=2, block=2, cell_width=72, cell_height=56, caption_height=caption_height,
                    gaps=Gaps(inside=3, between=9, margin=12))
    cells = arrange(layout, 3, 9, placement, seed=5)
    captions = {i: f"caption {i} of a cell" for i, cell in enumerate(cells) if cell.unique or i % 3 == 0}
    return compose(layout, cells, [ramp((100, 60), i) for i in range(3)], [ramp((50, 90), i + 3) for i in range(9)],
                   fit=fit, background=background, captions=captions)


def in_folder(draw: Callable[[Path], Image.Image]) -> Callable[[], Image.Image]:
    """Without an argument: in a folder that is gone afterwards."""
    def drawn() -> Image.Image:
        with tempfile.TemporaryDirectory() as folder:
            return draw(Path(folder))
    return drawn


DRAWN: dict[str, Callable[[], Image.Image]] = {
    "plot": plot_of_losses, "plot of epochs": plot_of_epochs,
    "training set": in_folder(sheet), "caption review": in_folder(review),
    "comparison": lambda: comparison(True, 80), "comparison without scores": lambda: comparison(False, 0),
    "bars": lambda: draw_bars(compared(True)), "seconds": lambda: draw_bars(compared(False), 800),
    "xy": lambda: xy(True, 100), "xy without scores": lambda: xy(False, 0),
    "denoising": lambda: denoising(0, 4, tuple(ROWS)), "denoising, small": lambda: denoising(60, 9, ("noisy",)),
    "tokens": tokens,
    "blocks": lambda: blocks(Fit.CROP, (255, 255, 255), Placement.RANDOM, 20),
    "blocks on dark": lambda: blocks(Fit.PAD, (20, 90, 30), Placement.BOTTOM_LEFT, 14),
    "side by side": lambda: side_by_side([ramp((40 + 10 * i, 60 - 5 * i), i) for i in range(6)], 4),
}


def main() -> None:
    """Write the stored pictures."""
    STORED.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWN.items():
        noted = PngInfo()
        noted.add_text(RASTERISER, rasteriser())
        draw().save(STORED / f"{name}.png", pnginfo=noted, optimize=True)


if __name__ == "__main__":
    main()
