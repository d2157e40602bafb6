"""Pictures to the host's IMAGE format and back."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from kit.pack import pack_module
from PIL import Image

pytestmark = pytest.mark.host


def test_converting_to_image_and_back_changes_no_pixel(pack: ModuleType) -> None:
    images = pack_module(pack, "nodes.host.images")
    picture = Image.linear_gradient("L").convert("RGB")
    tensor = images.to_image_tensor([picture, picture])
    assert tensor.shape == (2, 256, 256, 3)
    assert tensor.dtype == torch.float32
    assert 0 <= tensor.min() < tensor.max() <= 1
    assert images.from_image_tensor(tensor)[1].tobytes() == picture.tobytes()


def test_values_out_of_range_are_clamped(pack: ModuleType) -> None:
    convert = pack_module(pack, "nodes.host.images").from_image_tensor
    picture = convert(torch.tensor([-1.0, 0.5, 2.0]).reshape(1, 1, 1, 3))[0]
    assert picture.getpixel((0, 0)) == (0, 128, 255)
