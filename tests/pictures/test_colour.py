"""Colours of embedded profiles are shown and learnt as viewers show them."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from kit.icc import DISPLAY_P3, SRGB, cmyk_profile, expected_srgb, grey_profile, rgb_profile
from PIL import Image, ImageCms

from atelier.pictures import colour, decode
from atelier.pictures.decode import UnreadablePicture, read_picture
from atelier.pictures.rgb import to_rgb

LEVELS = np.random.default_rng(0).integers(40, 216, (16, 16, 3), np.uint8)


def saved(path: Path, profile: bytes, mode: str = "RGB") -> Path:
    Image.fromarray(LEVELS).convert(mode).save(path, icc_profile=profile)
    return path


def test_display_p3_is_converted_as_its_equations_say(tmp_path: Path) -> None:
    picture = read_picture(saved(tmp_path / "a.png", rgb_profile(DISPLAY_P3)))
    expected = expected_srgb(LEVELS.astype(float), DISPLAY_P3)
    assert np.abs(np.asarray(picture, float) - expected).max() <= 2
    assert np.abs(np.asarray(picture, float) - LEVELS).max() > 10
    assert np.array_equal(to_rgb(picture), picture)  # and not once more


def test_transparent_parts_are_white_in_any_profile(tmp_path: Path) -> None:
    picture = Image.fromarray(LEVELS)
    picture.putalpha(0)
    picture.putpixel((3, 4), (200, 50, 50, 255))
    picture.save(tmp_path / "a.png", icc_profile=rgb_profile(DISPLAY_P3))
    got = read_picture(tmp_path / "a.png")
    expected = expected_srgb(np.array([200.0, 50.0, 50.0]), DISPLAY_P3)
    assert np.abs(np.array(got.getpixel((3, 4))) - expected).max() <= 2
    assert got.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("profile", [
    ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"", b"junk", rgb_profile(DISPLAY_P3)[:300],
    ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
], ids=["sRGB", "none", "junk", "cut", "of another space"])
def test_srgb_and_what_says_nothing_leave_every_bit(profile: bytes, tmp_path: Path) -> None:
    assert np.array_equal(read_picture(saved(tmp_path / "a.png", profile)), LEVELS)


def test_a_grey_picture_with_a_profile_of_rgb_stays(tmp_path: Path) -> None:
    grey = np.asarray(Image.fromarray(LEVELS).convert("L").convert("RGB"))
    assert np.array_equal(read_picture(saved(tmp_path / "a.png", rgb_profile(DISPLAY_P3), "L")), grey)


def test_a_grey_picture_is_converted_by_a_profile_of_grey(tmp_path: Path) -> None:
    grey = np.asarray(Image.fromarray(LEVELS).convert("L").convert("RGB"))
    got = read_picture(saved(tmp_path / "a.png", grey_profile(1.0), "L"))
    assert np.abs(np.asarray(got, float) - expected_srgb(grey.astype(float), SRGB, 1.0)).max() <= 2


def test_inks_are_converted_as_their_profile_says(tmp_path: Path) -> None:
    inks = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    inks.save(tmp_path / "a.tiff", icc_profile=cmyk_profile(cyan=128))
    got = np.asarray(read_picture(tmp_path / "a.tiff"), int)
    assert np.abs(got - 120).max() <= 2  # sRGB's level for a lightness of 50
    inks.save(tmp_path / "b.tiff")
    assert (np.asarray(read_picture(tmp_path / "b.tiff")) == (0, 255, 255)).all()


def test_a_pillow_without_littlecms_ignores_profiles_and_says_so(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(colour.features, "check", lambda name: name != "littlecms2")
    colour._transform.cache_clear()
    try:
        got = read_picture(saved(tmp_path / "a.png", rgb_profile(DISPLAY_P3)))
    finally:
        colour._transform.cache_clear()
    assert np.array_equal(got, LEVELS)
    assert "without LittleCMS: colour profiles of pictures are ignored" in caplog.text


def test_a_profile_of_srgbs_primaries_and_another_gamma_counts(tmp_path: Path) -> None:
    got = read_picture(saved(tmp_path / "a.png", rgb_profile(SRGB, 1.8)))
    assert np.abs(np.asarray(got, float) - expected_srgb(LEVELS.astype(float), SRGB, 1.8)).max() <= 2


def test_heic_names_the_package_that_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    decode._register_heif.cache_clear()
    with pytest.raises(UnreadablePicture, match="pip install pillow-heif"):
        read_picture(path)


def test_heic_is_read_where_the_package_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the package, which teaches Pillow a format as it does."""
    def opener(file: BytesIO, name: str) -> Image.Image:
        return Image.fromarray(LEVELS)

    def register() -> None:
        Image.register_open("HEIC-TEST", opener, lambda prefix: prefix[4:12] == b"ftypheic")

    package = SimpleNamespace(register_heif_opener=register, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    decode._register_heif.cache_clear()
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    try:
        assert np.array_equal(read_picture(path), LEVELS)
    finally:
        decode._register_heif.cache_clear()
