"""The workflows that begin with a picture, steer by its depth or enlarge it, through the real host's queue with small
random models of the right kind; what comes out is compared with the network computed by hand, or with core's nodes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from kit.host import Host, Result
from kit.pictures import noise_picture
from kit.seeing_models import real_esrgan, write_controlnet, write_depth_model, write_real_esrgan, write_x4_upscaler
from kit.small_workflows import node_of
from PIL import Image

from tools.workflows import read_api

pytestmark = [pytest.mark.host, pytest.mark.slow]

SIZE = 64


@pytest.fixture
def photo(host: Host) -> Iterator[Callable[[int, int], np.ndarray]]:
    """Puts a picture of a size under the name that the workflows give, and takes it away again."""
    path = host.base / "input" / "example.png"
    before = path.read_bytes() if path.exists() else None

    def put(width: int, height: int) -> np.ndarray:
        made = noise_picture(width, height, 5)
        made.save(path)
        return np.asarray(made.convert("RGB")).astype(int)

    yield put
    if before is None:
        path.unlink()
    else:
        path.write_bytes(before)


def queued(host: Host, made: dict[str, Any]) -> Result:
    before = len(host.log())
    result = host.queue(made)
    assert result.status == "success", result.error
    for complaint in ("missing", "unexpected", "leftover"):
        assert complaint not in host.log()[before:], host.log()[before:]
    return result


def picture(result: Result, node: str) -> np.ndarray:
    """The only picture of a node, as numbers that can be subtracted; not an even surface."""
    found, = result.pictures(node)
    assert found.std() > 5, "an even picture: NaN, or nothing drawn"
    return found.astype(int)


def test_depth_steers_the_drawing(host: Host, put_checkpoint: Callable[..., str],
                                  photo: Callable[[int, int], np.ndarray]) -> None:
    put_checkpoint(host, "v1-5-pruned-emaonly-fp16.safetensors")
    models = host.base / "models"
    write_depth_model(models / "geometry_estimation" / "depth_anything_3_mono_large.safetensors")
    write_controlnet(models / "controlnet" / "control_v11f1p_sd15_depth_fp16.safetensors")
    before = photo(SIZE, SIZE)
    made = copy.deepcopy(read_api("depth_to_image"))
    for node in made.values():
        small = {"ImageScale": {"width": SIZE, "height": SIZE}, "EmptyLatentImage": {"width": SIZE, "height": SIZE},
                 "DA3Inference": {"resolution": 140}, "KSampler": {"steps": 2}}
        node["inputs"] |= small.get(node["class_type"], {})
    steer, saved = node_of(made, "ControlNetApplyAdvanced"), node_of(made, "SaveImage", "Save")
    result = queued(host, made)
    drawn, grid = picture(result, saved), picture(result, node_of(made, "SaveImage", "Save all three"))
    first, depth, last = (grid[15:15 + SIZE, left:left + SIZE] for left in (15, 15 + SIZE + 10, 15 + 2 * (SIZE + 10)))
    assert np.abs(first - before).max() <= 1 and np.abs(last - drawn).max() <= 1
    assert depth.std() > 5 and (np.ptp(depth, axis=2) == 0).all() and depth.min() == 0 and depth.max() == 255

    # Without strength: what core's sampler draws from the prompt alone.
    made[steer]["inputs"]["strength"] = 0.0
    without = picture(queued(host, made), saved)
    sampler = made[node_of(made, "KSampler")]["inputs"]
    sampler["positive"], sampler["negative"] = ([node_of(made, "CLIPTextEncode", title), 0] for title in
                                                ("Prompt, encoded", "Negative prompt, encoded"))
    assert np.array_equal(picture(queued(host, made), saved), without)
    assert np.abs(drawn - without).mean() > 2
    # Another depth, another drawing: the mirrored picture's.
    made[steer]["inputs"]["strength"] = 1.0
    sampler["positive"], sampler["negative"] = [steer, 0], [steer, 1]
    Image.fromarray(before[:, ::-1].astype(np.uint8)).save(host.base / "input" / "example.png")
    assert np.abs(picture(queued(host, made), saved) - drawn).mean() > 1


def test_real_esrgan_enlarges_as_computed_by_hand(host: Host, photo: Callable[[int, int], np.ndarray]) -> None:
    weights = write_real_esrgan(host.base / "models" / "upscale_models" / "RealESRGAN_x4plus.safetensors")
    before = photo(40, 24)
    made = read_api("upscale_real_esrgan")
    result = queued(host, made)
    enlarged = picture(result, node_of(made, "SaveImage"))
    with torch.no_grad():
        expected = real_esrgan(weights, torch.from_numpy(before / 255).float().movedim(-1, 0)[None])
    assert np.abs(enlarged - (expected[0].movedim(0, -1).clamp(0, 1) * 255).numpy()).max() <= 1.5
    both = picture(result, node_of(made, "PreviewImage"))
    plain = np.asarray(Image.fromarray(before.astype(np.uint8)).resize((160, 96), Image.Resampling.BICUBIC)).astype(int)
    assert both.shape == (96, 160 + 8 + 160, 3)
    assert np.abs(both[:, :160] - plain).mean() < 8 and np.abs(both[:, 168:] - enlarged).max() <= 1


def test_the_x4_upscaler_joins_its_tiles(host: Host, photo: Callable[[int, int], np.ndarray]) -> None:
    checkpoint = write_x4_upscaler(host.base / "models" / "checkpoints" / "x4-upscaler-ema.safetensors")
    photo(96, 64)
    made = copy.deepcopy(read_api("upscale_x4_tiles"))
    for node in made.values():
        small = {"KSampler": {"steps": 1}, "ImageMergeTileList": {"overlap": 64},
                 "SplitImageToTileList": {"tile_width": 64, "tile_height": 64, "overlap": 16}}
        node["inputs"] |= small.get(node["class_type"], {})
    merge, steps = node_of(made, "ImageMergeTileList"), node_of(made, "KSampler")
    made["tiles"] = {"class_type": "PreviewImage", "inputs": {"images": [node_of(made, "VAEDecode"), 0]},
                     "_meta": {"title": "tiles"}}
    result = queued(host, made)
    enlarged = picture(result, node_of(made, "SaveImage"))
    assert enlarged.shape == (4 * 64, 4 * 96, 3)
    assert sum(data["value"] == data["max"] for data in result.kinds("progress") if data["node"] == steps) >= 2
    left, right = (found.astype(int) for found in result.pictures("tiles"))
    # Beside the overlap each tile stands untouched; within it, they are blended.
    assert np.abs(enlarged[:, :4 * 32] - left[:, :4 * 32]).max() <= 1
    assert np.abs(enlarged[:, 4 * 64:] - right[:, 4 * 32:]).max() <= 1
    middle = slice(4 * 32, 4 * 64)
    low, high = np.minimum(left[:, middle], right[:, :4 * 32]), np.maximum(left[:, middle], right[:, :4 * 32])
    assert (enlarged[:, middle] >= low - 1).all() and (enlarged[:, middle] <= high + 1).all()
    assert np.abs(enlarged[:, middle] - left[:, middle]).mean() > 1
    # The first tile by core's nodes, alone.
    alone = copy.deepcopy({number: node for number, node in made.items()
                           if node["class_type"] not in ("SaveImage", "ImageStitch", "PreviewImage")})
    del alone[merge]
    tile = node_of(alone, "SplitImageToTileList")
    alone[tile] = {"class_type": "ImageCrop", "inputs": {"image": alone[tile]["inputs"]["image"], "width": 64,
                                                         "height": 64, "x": 0, "y": 0}}
    alone["show"] = {"class_type": "PreviewImage", "inputs": {"images": [node_of(made, "VAEDecode"), 0]}}
    assert np.array_equal(picture(queued(host, alone), "show"), left)
    checkpoint.unlink()
