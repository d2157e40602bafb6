"""Geometry: properties over many sizes, and values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.pictures import noise_picture
from PIL import Image

from atelier.dataset.prepare import prepare
from atelier.dataset.sample import make_sample
from atelier.dataset.sizing import buckets, find_focus, fit, target_size
from atelier.dataset.types import Crop, Resolution
from atelier.errors import AtelierError

SOURCES = st.tuples(st.integers(1, 6000), st.integers(1, 6000))
RESOLUTIONS = st.builds(
    Resolution, size=st.sampled_from([64, 128, 512, 768, 1024]), crop=st.sampled_from(Crop),
    bucket_step=st.sampled_from([8, 32, 64]), max_aspect=st.floats(1, 8))


@settings(deadline=None)
@given(SOURCES, RESOLUTIONS, st.floats(0, 1))
def test_the_picture_lies_inside_and_keeps_the_aspect(source: tuple[int, int], resolution: Resolution,
                                                    focus: float) -> None:
    geometry = fit(source, resolution, focus)
    left, top, right, bottom = geometry.box
    assert 0 <= left < right <= source[0] and 0 <= top < bottom <= source[1]
    x0, y0, x1, y1 = geometry.inner
    assert 0 <= x0 < x1 <= geometry.target[0] and 0 <= y0 < y1 <= geometry.target[1]
    assert geometry.target == target_size(source, resolution)
    across, down = geometry.scale
    if resolution.crop is Crop.PAD:
        # Whole pixels: a side is off by at most half a pixel (or is one pixel where nothing would be left).
        assert geometry.box == (0, 0, *source)
        exact = min(geometry.target[0] / source[0], geometry.target[1] / source[1])
        for length, whole in ((x1 - x0, source[0]), (y1 - y0, source[1])):
            assert abs(length - whole * exact) <= 0.5 + 1e-6 or length == 1
        assert x1 - x0 == geometry.target[0] or y1 - y0 == geometry.target[1]
    else:
        assert not geometry.padded
        assert across == pytest.approx(down, rel=1e-6)
        assert right - left == pytest.approx(source[0]) or bottom - top == pytest.approx(source[1])
    assert fit(source, resolution, focus) == geometry


def test_micro_conditioning_names_the_height_first() -> None:
    """As diffusers' `_get_add_time_ids`: original size, corner of the crop, target size, each (height, width)."""
    geometry = fit((150, 90), Resolution(128, Crop.BUCKET, bucket_step=32))
    assert geometry.target == (160, 96)
    assert geometry.time_ids() == (90, 150, 0, 0, 96, 160)
    # Scaled by 96 / 90 it is 213 pixels high, of which 21 are cut away, half of them above.
    tall = fit((90, 200), Resolution(128, Crop.BUCKET, bucket_step=32))
    assert tall.time_ids() == (200, 90, 11, 0, tall.target[1], tall.target[0]) and tall.target[1] > tall.target[0]


@settings(deadline=None)
@given(RESOLUTIONS)
def test_buckets_have_nearly_one_area_and_bounded_ratio(resolution: Resolution) -> None:
    sizes = buckets(resolution)
    assert len(set(sizes)) == len(sizes) and list(sizes) == sorted(sizes)
    squares = [width for width, height in sizes if width == height]
    assert len(squares) == 1 and abs(squares[0] - resolution.size) <= resolution.bucket_step / 2
    for width, height in sizes:
        assert width % resolution.bucket_step == 0 and height % resolution.bucket_step == 0
        assert (height, width) in sizes
        assert max(width, height) / min(width, height) <= resolution.max_aspect
        if width != height:
            assert abs(width * height / resolution.size ** 2 - 1) <= 0.25


def test_the_usual_buckets() -> None:
    assert buckets(Resolution(512, Crop.BUCKET)) == (
        (384, 640), (384, 704), (448, 576), (512, 512), (576, 448), (640, 384), (704, 384))


@settings(deadline=None)
@given(SOURCES, RESOLUTIONS)
def test_a_picture_goes_to_the_bucket_of_nearest_ratio(source: tuple[int, int], resolution: Resolution) -> None:
    bucketed = Resolution(resolution.size, Crop.BUCKET, resolution.bucket_step, resolution.max_aspect)
    width, height = target_size(source, bucketed)

    def distance(size: tuple[int, int]) -> float:
        return max(size[0] * source[1], size[1] * source[0]) / min(size[0] * source[1], size[1] * source[0])

    assert distance((width, height)) == pytest.approx(min(map(distance, buckets(bucketed))), rel=1e-6)


def test_size_ids_as_the_diffusers_script_computes_them() -> None:
    # 800 x 600, shorter side to 512: 683 x 512, centre crop at left (682.67 - 512) / 2 = 85.33.
    geometry = fit((800, 600), Resolution(512))
    assert geometry.time_ids() == (600, 800, 0, 85, 512, 512)
    tall = fit((600, 800), Resolution(512))
    assert tall.time_ids() == (800, 600, 85, 0, 512, 512)
    assert fit((800, 600), Resolution(512, Crop.PAD)).time_ids() == (600, 800, 0, 0, 512, 512)
    focal = fit((800, 600), Resolution(512, Crop.FOCAL), focus=1.0)
    assert focal.time_ids() == (600, 800, 0, 171, 512, 512)
    assert focal.time_ids(flip=True) == (600, 800, 0, 0, 512, 512)


@pytest.mark.parametrize("size", [(300, 100), (100, 300)])
def test_focus_finds_the_detail(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, "grey")
    busy = noise_picture(60, 60)
    assert find_focus(picture) == 0.5
    picture.paste(busy, (size[0] - 60, size[1] - 60))
    wide = size[0] > size[1]
    along = find_focus(picture)
    assert along > 0.7
    mirrored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT if wide else Image.Transpose.FLIP_TOP_BOTTOM)
    assert find_focus(mirrored) == pytest.approx(1 - along, abs=0.02)
    box = fit(size, Resolution(64, Crop.FOCAL), along).box
    assert box[0 if wide else 1] <= 240 and box[2 if wide else 3] >= 299.9


def test_the_window_of_a_picture_lies_where_its_policy_says(tmp_path: Path) -> None:
    picture = Image.new("RGB", (300, 100), "grey")
    picture.paste(noise_picture(60, 60), (240, 40))
    picture.save(tmp_path / "a.png")
    sample = make_sample(tmp_path / "a.png", ("",))
    detail = {crop: float(prepare(sample, Resolution(64, crop)).pixels.std()) for crop in (Crop.FOCAL, Crop.CENTER)}
    assert detail[Crop.FOCAL] > 20 and detail[Crop.CENTER] == 0
    assert prepare(sample, Resolution(64)).geometry.box == (100, 0, 200, 100)


@settings(deadline=None)
@given(st.integers(8, 700), st.integers(8, 700), st.integers(0, 3))
def test_focus_is_a_share_and_deterministic(width: int, height: int, seed: int) -> None:
    picture = noise_picture(width, height, seed)
    focus = find_focus(picture)
    assert 0 <= focus <= 1 and focus == find_focus(picture.copy())


def test_a_crop_is_the_same_as_cutting_first(tmp_path: Path) -> None:
    noise_picture(96, 64).save(tmp_path / "a.png")
    got = prepare(make_sample(tmp_path / "a.png", ("",)), Resolution(64))
    assert got.mask is None
    assert (got.pixels == np.asarray(noise_picture(96, 64))[:, 16:80]).all()


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    got = prepare(make_sample(tmp_path / "a.png", ("",)), Resolution(64)).pixels
    assert np.abs(got[:, 2:-2].astype(int) - 127).max() <= 3


def test_padding_is_masked(tmp_path: Path) -> None:
    Image.new("RGB", (128, 64), (10, 200, 30)).save(tmp_path / "a.png")
    got = prepare(make_sample(tmp_path / "a.png", ("",)), Resolution(128, Crop.PAD))
    assert got.mask is not None
    expected = np.zeros((128, 128), np.uint8)
    expected[32:96] = 255
    assert (got.mask == expected).all()
    assert (got.pixels == (10, 200, 30)).all(), "bars take the mean colour"


def test_a_mask_follows_its_picture(tmp_path: Path) -> None:
    noise_picture(256, 128).save(tmp_path / "a.png")
    mask = np.zeros((128, 256), np.uint8)
    mask[:, 64:128] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    sample = make_sample(tmp_path / "a.png", ("",), mask=tmp_path / "m.png")
    centre = prepare(sample, Resolution(64))
    assert centre.mask is not None
    assert (centre.mask[:, :32] == 255).all() and (centre.mask[:, 32:] == 0).all()
    padded = prepare(sample, Resolution(64, Crop.PAD))
    assert padded.mask is not None
    assert padded.mask[16:48, 16:32].all() and padded.mask.sum() == 255 * 32 * 16


@pytest.mark.parametrize(("values", "field"), [
    ({"size": 100}, "resolution is 100"), ({"size": 32}, "from 64 on, such as 64"),
    ({"size": 507}, "such as 504"), ({"bucket_step": 7}, "bucket_step"),
    ({"size": 64, "bucket_step": 128}, "bucket_step"), ({"max_aspect": 0.5}, "max_aspect"),
    ({"crop": "squash"}, "crop")])
def test_a_resolution_names_its_bad_field(values: dict, field: str) -> None:
    with pytest.raises(AtelierError, match=field):
        Resolution(**values)


def test_a_crop_may_be_given_by_its_value() -> None:
    assert Resolution(crop="bucket").crop is Crop.BUCKET  # type: ignore[arg-type]
