"""Decoding against hand-made pictures of each mode and against Pillow's own helpers."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from kit.pictures import noise_picture
from PIL import Image, ImageFile, ImageOps

from atelier.limits import Limits
from atelier.pictures import decode
from atelier.pictures.decode import (
    MAX_PIXELS,
    UnreadablePicture,
    check_picture,
    decode_mask,
    read_picture,
    strict_decoding,
)

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixels(path: Path) -> np.ndarray:
    picture = read_picture(path)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def test_greyscale_has_three_equal_channels(tmp_path: Path) -> None:
    got = pixels(saved(tmp_path / "a.png", Image.fromarray(RAMP)))
    assert (got == RAMP[..., None]).all()


def test_one_bit(tmp_path: Path) -> None:
    bits = RAMP % 2 == 0
    got = pixels(saved(tmp_path / "a.png", Image.fromarray(bits)))
    assert (got == np.where(bits, 255, 0)[..., None]).all()


def test_sixteen_bit_is_scaled_not_clipped(tmp_path: Path) -> None:
    deep = RAMP.astype(np.uint16) * 257
    got = pixels(saved(tmp_path / "a.png", Image.fromarray(deep)))
    assert (got == RAMP[..., None]).all()


def test_float_tiff_is_scaled(tmp_path: Path) -> None:
    got = pixels(saved(tmp_path / "a.tiff", Image.fromarray((RAMP / 255).astype(np.float32))))
    assert (got == RAMP[..., None]).all()


def test_alpha_is_composited_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, RAMP
    got = pixels(saved(tmp_path / "a.png", Image.fromarray(rgba)))
    share = RAMP[..., None] / 255
    expected = np.array([200, 0, 0]) * share + 255 * (1 - share)
    assert np.abs(got - expected).max() <= 1


def test_grey_with_alpha(tmp_path: Path) -> None:
    la = np.stack([np.full_like(RAMP, 100), RAMP], axis=-1)
    got = pixels(saved(tmp_path / "a.png", Image.fromarray(la, "LA")))
    expected = 100 * (RAMP / 255) + 255 * (1 - RAMP / 255)
    assert np.abs(got - expected[..., None]).max() <= 1


def test_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    image = Image.fromarray(RAMP % 3, "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    got = pixels(saved(tmp_path / "a.png", image, transparency=1))
    colours = np.array([[10, 20, 30], [255, 255, 255], [70, 80, 90]])
    assert (got == colours[RAMP % 3]).all()


def test_colour_key_transparency(tmp_path: Path) -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[:8] = (1, 2, 3)
    got = pixels(saved(tmp_path / "a.png", Image.fromarray(rgb), transparency=(1, 2, 3)))
    assert (got[:8] == 255).all() and (got[8:] == 0).all()


def test_cmyk(tmp_path: Path) -> None:
    picture = noise_picture(32, 24)
    got = pixels(saved(tmp_path / "a.jpg", picture.convert("CMYK"), quality=98))
    assert np.abs(got.astype(int) - np.asarray(picture)).mean() < 6


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    saved(tmp_path / "a.gif", first, save_all=True, append_images=[second])
    saved(tmp_path / "b.png", first, save_all=True, append_images=[second])
    for name in ("a.gif", "b.png"):
        assert (pixels(tmp_path / name) == (255, 0, 0)).all()


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, ending: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{ending}", noise_picture(40, 24), exif=exif)
    with Image.open(path) as image:
        image.load()  # Pillow turns a TIFF while loading it; asked before, its helper would turn it twice
        expected = ImageOps.exif_transpose(image).convert("RGB")
    got = read_picture(path)
    assert got.size == expected.size == check_picture(path, path.read_bytes())
    assert (np.asarray(got) == np.asarray(expected)).all()
    assert got.size == ((24, 40) if orientation > 4 else (40, 24))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


LONG = b'{"nodes": []}' * 200_000
ZIPPED = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(LONG))
INTERNATIONAL = chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(LONG))


@pytest.mark.parametrize("texts", [ZIPPED, INTERNATIONAL, ZIPPED * 40])
@pytest.mark.parametrize("place", [33, -12], ids=["before the pixels", "behind the pixels"])
def test_a_large_workflow_in_the_file_does_not_matter(tmp_path: Path, texts: bytes, place: int) -> None:
    """Programs pack what ComfyUI writes into its pictures: Pillow takes no packed text of more than a megabyte."""
    picture = noise_picture(40, 24)
    path = saved(tmp_path / "a.png", picture)
    data = path.read_bytes()
    path.write_bytes(data[:place] + texts + data[place:])
    with pytest.raises(ValueError, match=r"too large|Too much"), Image.open(path) as image:
        image.load()
    assert (pixels(path) == np.asarray(picture)).all()
    assert check_picture(path, path.read_bytes()) == (40, 24)
    assert decode_mask(path, path.read_bytes()).size == (40, 24)


def test_texts_that_turn_a_picture_are_heeded(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = exif.tobytes()
    raw = f"\nexif\n{len(profile):8}\n{profile.hex()}\n".encode()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for number, text in enumerate((chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)),
                                   chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))):
        path = saved(tmp_path / f"{number}.png", noise_picture(40, 24))
        data = path.read_bytes()
        path.write_bytes(data[:33] + ZIPPED + text + data[33:])
        assert read_picture(path).size == check_picture(path, path.read_bytes()) == (24, 40)


def test_other_chunks_stay(tmp_path: Path) -> None:
    """A palette, its transparency, and a file whose end is missing, behind a text."""
    image = Image.fromarray(RAMP % 3)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    path = saved(tmp_path / "a.png", image, transparency=1)
    expected, data = pixels(path), path.read_bytes()
    path.write_bytes(data[:33] + ZIPPED + data[33:])
    assert (pixels(path) == expected).all() and (expected == 255).any()
    path.write_bytes(data[:33] + ZIPPED + data[33:-30])
    with strict_decoding(), pytest.raises(UnreadablePicture, match=r"a\.png"):
        read_picture(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("exif", [
    b"MM\0*\0\0\0\x08\0\x05\x01\x12", b"no exif at all", b"MM\0*\0",
    b"MM\0*\0\0\0\x08\0\1\x01\x12\0\2\0\0\0\4abc\0", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\x0b\0\0\0\1\x7f\x80\0\0\0\0\0\0",
], ids=["cut", "other", "short", "turned by abc", "turned by infinity"])
def test_damaged_exif_leaves_the_picture_readable(exif: bytes, ending: str, tmp_path: Path) -> None:
    path = saved(tmp_path / f"a.{ending}", noise_picture(40, 24), exif=b"Exif\0\0" + exif)
    assert read_picture(path).size == check_picture(path, path.read_bytes()) == (40, 24)


def test_a_damaged_text_that_would_turn_a_picture_is_passed_by(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", noise_picture(40, 24))
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk(b"zTXt", b"Raw profile type exif\0\0not packed") + data[33:])
    assert read_picture(path).size == check_picture(path, path.read_bytes()) == (40, 24)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", noise_picture(40, 24))
    size = path.stat().st_size // 1024 * 1024
    os.truncate(path, size)
    monkeypatch.setattr(decode, "LARGEST", Limits(size=size))
    assert len(decode.read_file(path)) == size
    os.truncate(path, size + 1)
    with pytest.raises(UnreadablePicture, match=rf"a\.png cannot be used: it has more than {size // 1024} kB\."):
        read_picture(path)


@pytest.mark.parametrize(("readable", "said"), [(False, "AVIF file.*pip install -U pillow"), (True, "known format")])
def test_an_avif_that_this_pillow_cannot_read_names_the_newer_one(
        readable: bool, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.AVIF"
    path.write_bytes(b"none of these")
    monkeypatch.setattr(decode.features, "check", lambda name: readable if name == "avif" else True)
    with pytest.raises(UnreadablePicture, match=said):
        read_picture(path)


def test_a_fully_transparent_picture_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "gone.png", Image.new("RGBA", (8, 8), (50, 60, 70, 0)))
    with pytest.raises(UnreadablePicture, match=r"gone\.png.*fully transparent"):
        read_picture(path)
    with pytest.raises(UnreadablePicture, match="fully transparent"):
        check_picture(path, path.read_bytes())


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "gif", "tiff", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.98])
def test_a_truncated_file_is_named(tmp_path: Path, ending: str, share: float) -> None:
    path = saved(tmp_path / f"cut.{ending}", noise_picture(96, 64))
    whole = path.read_bytes()
    assert check_picture(path, whole) == (96, 64)
    path.write_bytes(whole[:int(len(whole) * share)])
    for read in (lambda: read_picture(path), lambda: check_picture(path, path.read_bytes())):
        with pytest.raises(UnreadablePicture, match=rf"cut\.{ending}"):
            read()


def test_truncation_is_seen_though_the_host_told_pillow_to_ignore_it(tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "cut.jpg", noise_picture(96, 64))
    path.write_bytes(path.read_bytes()[:-200])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with strict_decoding(), pytest.raises(UnreadablePicture):
        read_picture(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_text_that_pretends_to_be_a_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello", encoding="utf-8")
    with pytest.raises(UnreadablePicture, match="not a picture of a known format"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    # Another pack may have switched Pillow's own guard off.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb + chunk(b"IEND", b""))
    assert side ** 2 > MAX_PIXELS
    with pytest.raises(UnreadablePicture, match=r"bomb\.png.*pixels"):
        read_picture(path)
    monkeypatch.undo()
    with strict_decoding(), pytest.raises(UnreadablePicture, match=r"bomb\.png.*pixels"):
        read_picture(path)


def test_a_mask_is_grey_and_transparent_means_black(tmp_path: Path) -> None:
    rgba = np.full((4, 4, 4), 255, np.uint8)
    rgba[:2, :, 3] = 0
    path = saved(tmp_path / "m.png", Image.fromarray(rgba))
    mask = decode_mask(path, path.read_bytes())
    assert mask.mode == "L"
    assert (np.asarray(mask) == np.repeat([[0], [0], [255], [255]], 4, axis=1)).all()
    path = saved(tmp_path / "n.png", Image.fromarray(RAMP))
    grey = decode_mask(path, path.read_bytes())
    assert (np.asarray(grey) == RAMP).all()


def test_decoding_needs_no_more_than_the_bytes(tmp_path: Path) -> None:
    data = io.BytesIO()
    noise_picture(20, 10).save(data, "PNG")
    assert check_picture(tmp_path / "not there.png", data.getvalue()) == (20, 10)
