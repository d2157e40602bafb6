"""Write the demo's training sets: folders of pictures with caption files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AtelierError
from ..files import atomic_folder, write_text
from .drawing import LEARNT_POSITIONS, Spec, caption, draw, pencil_caption, random_specs

if TYPE_CHECKING:
    from PIL.Image import Image

PHOTOGRAPHS = {
    "astronaut.png": "a portrait of a smiling astronaut in an orange suit",
    "chelsea.png": "a close portrait of a ginger cat",
    "coffee.png": "a cup of coffee with a spoon on a wooden table",
    "rocket.jpg": "a rocket on its launch pad at night",
    "camera.png": "a man with a camera on a tripod, black and white",
    "motorcycle_left.png": "a motorcycle in a garage",
    "brick.png": "a brick wall",
    "gravel.png": "gravel on the ground",
}
"""Pictures in scikit-image's wheel, with their captions."""


def pencil_pictures(folder: Path, count: int, seed: int = 11) -> Path:
    """Draw `count` pencil sketches with captions: the style to be learnt."""
    pairs = [(draw(spec, "pencil"), pencil_caption(spec, 2 if i % 3 else 0))
             for i, spec in enumerate(_centred(count, seed))]
    return _write_set(folder, pairs)


def plain_pictures(folder: Path, count: int, seed: int = 12) -> Path:
    """Draw `count` pictures in the base model's own look, with captions: prior pictures and fillers."""
    pairs = [(draw(spec), caption(spec, 2 if i % 3 else 0)) for i, spec in enumerate(_centred(count, seed))]
    return _write_set(folder, pairs)


def photographs(folder: Path) -> Path:
    """Copy some real photographs out of scikit-image, with captions.

    Raises:
        AtelierError: scikit-image is not installed.
    """
    from PIL import Image

    try:
        import skimage
    except ImportError as error:
        raise AtelierError("The demo's photographs come with scikit-image, which is not installed.",
                           "pip install scikit-image, or give a folder of your own with --pictures.") from error
    source = Path(skimage.__file__).parent / "data"
    pairs = [(Image.open(source / name).convert("RGB"), text) for name, text in PHOTOGRAPHS.items()
             if (source / name).is_file()]
    if not pairs:
        raise AtelierError(f"This release of scikit-image has none of the demo's photographs in {source}.",
                           "Give a folder of your own with --pictures.")
    return _write_set(folder, pairs)


def _centred(count: int, seed: int) -> list[Spec]:
    """Random specs at positions that the base model has learnt."""
    return [replace(spec, position=LEARNT_POSITIONS[0]) for spec in random_specs(count, seed)]


def _write_set(folder: Path, pairs: Sequence[tuple[Image, str]]) -> Path:
    with atomic_folder(folder) as part:
        for i, (picture, text) in enumerate(pairs):
            picture.save(part / f"{i:03d}.png")
            write_text(part / f"{i:03d}.txt", text + "\n")
    return folder
