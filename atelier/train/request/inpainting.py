"""How inpainting models are trained."""

from __future__ import annotations

from dataclasses import dataclass

from .checks import check_types, require


@dataclass(frozen=True, kw_only=True)
class InpaintingConfig:
    """The random masks of a model that fills in parts of a picture. Other models have none.

    Raises:
        AtelierError: a value is out of range or of another type; the message names the field.
    """

    inpaint_masks: int = 4
    """Random masks that are drawn for each picture; each use takes one of them at random. The first hides the whole
    picture, so that with 4 a quarter of the uses are text to image. Each costs one more pass through the VAE when
    pictures are encoded."""

    def __post_init__(self) -> None:
        check_types(self)
        require(1 <= self.inpaint_masks <= 64, "inpaint_masks", self.inpaint_masks, "Choose a number from 1 to 64.")
