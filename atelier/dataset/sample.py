"""A checked sample from a picture file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..pictures.decode import UnreadablePicture, check_picture, read_file
from .types import Sample


def make_sample(image: Path, captions: tuple[str, ...], *, repeats: int = 1, mask: Path | None = None,
                prior: bool = False) -> Sample:
    """Read the picture's file and its mask's once, take their digests and see that they decode.

    Raises:
        UnreadablePicture: one of them is damaged, or the mask is of another shape than the picture.
    """
    data = read_file(image)
    size = check_picture(image, data)
    mask_digest = ""
    if mask is not None:
        mask_data = read_file(mask)
        mask_size = check_picture(mask, mask_data, is_mask=True)
        if mask_size != size:
            raise UnreadablePicture(image, f"its mask {mask.name} is {mask_size[0]} × {mask_size[1]} pixels, "
                                           f"the picture {size[0]} × {size[1]}")
        mask_digest = hashlib.sha256(mask_data).hexdigest()
    return Sample(image=image, captions=captions, digest=hashlib.sha256(data).hexdigest(), size=size, repeats=repeats,
                  mask=mask, mask_digest=mask_digest, prior=prior)

