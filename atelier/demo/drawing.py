"""The demo's pictures: one coloured shape on a coloured background, with its caption.

A picture depends on its `Spec` alone; equal specs give equal pictures. Shapes are signed distance functions sampled at
pixel centres, so a picture can be drawn at any size and its edges are antialiased over one pixel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import AtelierError
from .pencil import sketch

if TYPE_CHECKING:
    from PIL.Image import Image

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 44), "orange": (242, 136, 24), "yellow": (248, 216, 48), "green": (36, 152, 70),
    "blue": (38, 88, 208), "purple": (128, 54, 166), "white": (246, 246, 246), "black": (18, 18, 22),
    "grey": (132, 134, 138), "pink": (246, 158, 192), "brown": (118, 74, 40),
}
"""sRGB values, 0 to 255."""
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
BACKGROUNDS = ("white", "black", "grey", "pink", "brown", "blue", "green")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES: dict[str, float] = {"small": 0.205, "large": 0.28}
"""Circumradius as a part of the picture's side."""
POSITIONS: dict[str, tuple[float, float]] = {
    "in the centre": (0.0, 0.0), "on the left": (-0.17, 0.0), "on the right": (0.17, 0.0),
    "at the top": (0.0, -0.17), "at the bottom": (0.0, 0.17),
}
"""Offset of the shape's centre from the picture's, as parts of the side; y points down."""
LEARNT_POSITIONS = ("in the centre",)
"""Positions that the shipped model was mostly trained on; elsewhere it draws blobs."""
PHRASINGS = 4
STYLE_TEXT = "a pencil sketch"
"""The second style in words."""
Style = Literal["plain", "pencil"]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The content of one picture.

    Raises:
        AtelierError: a word is not listed in this module; the message names the field.
    """

    shape: str
    color: str
    background: str
    size: str = "large"
    position: str = "in the centre"
    seed: int = 0
    """Seed of small variations in position, size and tone that captions do not mention."""

    def __post_init__(self) -> None:
        known = {"shape": SHAPES, "color": COLORS, "background": BACKGROUNDS, "size": SIZES, "position": POSITIONS}
        for name, words in known.items():
            value = getattr(self, name)
            if value not in words:
                raise AtelierError(f"{name} is {value!r}.", f"Choose one of: {', '.join(words)}.")
        if self.color == self.background:
            raise AtelierError(f"color and background are both {self.color!r}, so nothing would be seen.",
                               "Choose two different colours.")

    @property
    def held_out(self) -> bool:
        """True for the tenth of all (colour, shape, background) triples that training never shows."""
        # A lattice instead of random choice, so that every word is held out three to six times.
        numbers = COLORS.index(self.color), SHAPES.index(self.shape), BACKGROUNDS.index(self.background)
        return (numbers[0] + 3 * numbers[1] + 4 * numbers[2]) % 10 == 0


def draw(spec: Spec, style: Style = "plain", size: int = 128) -> Image:
    """Draw `spec` as an RGB picture of `size` × `size` pixels."""
    from PIL import Image as pil
    return pil.fromarray(draw_array(spec, style, size))


def draw_array(spec: Spec, style: Style = "plain", size: int = 128) -> np.ndarray:
    """Draw `spec` as uint8 `[size, size, 3]`.

    Raises:
        AtelierError: `style` is neither "plain" nor "pencil".
    """
    if style not in ("plain", "pencil"):
        raise AtelierError(f"style is {style!r}.", 'Choose "plain" or "pencil".')
    rng = _rng(spec)
    shift_x, shift_y = np.array(POSITIONS[spec.position]) + rng.uniform(-0.02, 0.02, 2)
    radius = SIZES[spec.size] * rng.uniform(0.95, 1.05)
    fill = np.array(PALETTE[spec.color]) + rng.uniform(-6, 6, 3)
    ground = np.array(PALETTE[spec.background]) + rng.uniform(-6, 6, 3)
    axis = (np.arange(size) + 0.5) / size - 0.5
    edge = distance(spec.shape, axis[None, :] - shift_x, axis[:, None] - shift_y, radius) * size
    if style == "pencil":
        rgb = sketch(edge, fill, rng)
    else:
        cover = np.clip(0.5 - edge, 0, 1)[..., None]
        rgb = ground + cover * (fill - ground)
    return np.clip(rgb + 0.5, 0, 255).astype(np.uint8)


def caption(spec: Spec, phrasing: int = 0) -> str:
    """The caption of `spec`. Phrasings 2 and 3 omit size and position.

    Args:
        spec: What the picture shows.
        phrasing: 0 to `PHRASINGS` - 1.
    """
    what, ground = f"{spec.color} {spec.shape}", f"{spec.background} background"
    return (f"a {spec.size} {what} on a {ground}, {spec.position}",
            f"{ground} with a {spec.size} {what} {spec.position}",
            f"a {what} on a {ground}",
            f"a picture of a {what}, {ground}")[phrasing]


def pencil_caption(spec: Spec, phrasing: int = 0) -> str:
    """The caption of `spec` drawn in pencil, without background: the paper hides it. Phrasings as in `caption`."""
    what = f"{spec.color} {spec.shape}"
    return (f"{STYLE_TEXT} of a {spec.size} {what}, {spec.position}",
            f"{STYLE_TEXT} of a {spec.size} {what} {spec.position}",
            f"{STYLE_TEXT} of a {what}",
            STYLE_TEXT)[phrasing]


def specs(held_out: bool) -> Iterator[Spec]:
    """Yield every combination of words whose triple is (or is not) held out, in a fixed order, with seed 0."""
    for color in COLORS:
        for shape in SHAPES:
            for background in BACKGROUNDS:
                if color == background:
                    continue
                spec = Spec(shape=shape, color=color, background=background)
                if spec.held_out == held_out:
                    yield from (replace(spec, size=size, position=position) for size in SIZES for position in POSITIONS)


def random_specs(count: int, seed: int, held_out: bool = False) -> list[Spec]:
    """Draw `count` specs evenly over the words, each with its own seed; equal arguments give equal lists."""
    pool = list(specs(held_out))
    rng = np.random.Generator(np.random.Philox(key=seed))
    return [replace(pool[int(i)], seed=int(s)) for i, s in zip(rng.integers(len(pool), size=count),
                                                               rng.integers(2**31, size=count), strict=True)]


def held_out_prompts(n: int) -> list[tuple[Spec, str]]:
    """Return `n` specs held out from training, with captions, at positions the model has learnt.

    Every held-out triple comes before one repeats.
    """
    pool = [spec for spec in specs(held_out=True) if spec.position in LEARNT_POSITIONS]
    rng = np.random.Generator(np.random.Philox(key=64))
    kinds = len(SIZES) * len(LEARNT_POSITIONS)
    triples = rng.permutation(len(pool) // kinds)
    chosen = [pool[int(triples[i % len(triples)]) * kinds + int(rng.integers(kinds))] for i in range(n)]
    return [(spec, caption(spec)) for spec in chosen]


def _rng(spec: Spec) -> np.random.Generator:
    words = "|".join(str(getattr(spec, field.name)) for field in fields(spec))
    key = int.from_bytes(hashlib.sha256(words.encode()).digest()[:16], "big")
    return np.random.Generator(np.random.Philox(key=key))


def distance(shape: str, x: Any, y: Any, r: float) -> np.ndarray:
    """Signed distance to the outline (negative inside); exact near edges, a bound near corners."""
    if shape == "circle":
        return np.hypot(x, y) - r
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.78 * r) - 0.22 * r
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.86 * r
    if shape == "cross":
        ax, ay = np.abs(x), np.abs(y)
        return np.minimum(np.maximum(ax - r, ay - 0.33 * r), np.maximum(ay - r, ax - 0.33 * r))
    # Triangle and star: fold the plane into half a spike, tip up, where one straight edge is left.
    spikes, inner = (3, 0.5) if shape == "triangle" else (5, 0.42)
    half = np.pi / spikes
    angle = np.abs((np.arctan2(x, -y) + half) % (2 * half) - half)
    along, across = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
    edge_along, edge_across = inner * r * np.cos(half) - r, inner * r * np.sin(half)
    return ((along - r) * edge_across - across * edge_along) / np.hypot(edge_along, edge_across)
