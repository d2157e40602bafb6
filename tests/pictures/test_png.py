"""Texts in PNG files as prompts are read from them: long, packed, behind the pixels, damaged."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest
from kit.found_prompts import A1111, BASE, GRAPH, READ, has, node, png
from PIL import Image

from atelier.errors import AtelierError
from atelier.pictures.metadata.read import pixel_size, read_prompt
from atelier.pictures.png import MOST_TEXT, png_texts


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def zipped(keyword: str, text: bytes) -> bytes:
    return chunk(b"zTXt", keyword.encode() + b"\0\0" + zlib.compress(text))


def with_chunks(path: Path, *chunks: bytes) -> Path:
    """A picture with these chunks before its pixels."""
    plain = png(path).read_bytes()
    path.write_bytes(plain[:33] + b"".join(chunks) + plain[33:])
    return path


GOOD = chunk(b"tEXt", b"parameters\0" + A1111.encode())


def test_a_long_compressed_text_hides_nothing(tmp_path: Path) -> None:
    path = with_chunks(tmp_path / "a.png", zipped("workflow", b"x" * 3_000_000), GOOD)
    has(read_prompt(path), **BASE)
    assert pixel_size(path) == (16, 8)
    graph = json.dumps(GRAPH | {"note": node("Note", text="x" * 3_000_000)}).encode()
    has(read_prompt(with_chunks(tmp_path / "b.png", zipped("prompt", graph))), **READ)


def test_the_prompt_of_a_picture_that_was_cut_off_before_its_pixels_is_read(tmp_path: Path) -> None:
    path = with_chunks(tmp_path / "a.png", GOOD)
    path.write_bytes(path.read_bytes().partition(b"IDAT")[0][:-4])
    has(read_prompt(path), **BASE)
    huge = with_chunks(tmp_path / "b.png", zipped("workflow", b"x" * (MOST_TEXT + 1)))
    huge.write_bytes(huge.read_bytes().partition(b"IDAT")[0][:-4])
    with pytest.raises(AtelierError, match=r"b\.png holds metadata of more than 16 MB"):
        read_prompt(huge)


def test_texts_have_a_limit_that_is_said(tmp_path: Path) -> None:
    huge = zipped("workflow", b"x" * (MOST_TEXT + 1))
    with pytest.raises(AtelierError, match=r"a\.png holds metadata of more than 16 MB \(workflow\)"):
        read_prompt(with_chunks(tmp_path / "a.png", huge))
    has(read_prompt(with_chunks(tmp_path / "b.png", huge, huge, huge, huge, huge, GOOD)), **BASE)
    six = [zipped(f"t{i}", b"x" * MOST_TEXT) for i in range(6)]
    found = png_texts(with_chunks(tmp_path / "c.png", *six).read_bytes())
    assert list(found.texts) == ["t0", "t1", "t2", "t3"] and found.left_out == ["t4", "t5"]


def test_a_text_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    packer = zlib.compressobj()
    bomb = b"".join([*(packer.compress(bytes(2**20)) for _ in range(256)), packer.flush()])
    path = with_chunks(tmp_path / "a.png", chunk(b"zTXt", b"workflow\0\0" + bomb), GOOD)
    data = path.read_bytes()
    tracemalloc.start()
    try:
        found = png_texts(data)
        assert tracemalloc.get_traced_memory()[1] < 4 * MOST_TEXT
    finally:
        tracemalloc.stop()
    assert found.left_out == ["workflow"] and set(found.texts) == {"parameters"}


def test_chunks_of_every_kind_and_damaged_ones(tmp_path: Path) -> None:
    words = "größe 猫"
    plain = chunk(b"iTXt", b"one\0\0\0de\0eins\0" + words.encode())
    packed = chunk(b"iTXt", b"two\0\1\0\0\0" + zlib.compress(words.encode()))
    spoiled = GOOD[:-6] + b"!!" + GOOD[-4:]
    bad = chunk(b"zTXt", b"three\0\0not compressed")
    data = with_chunks(tmp_path / "a.png", plain, packed, bad, spoiled, chunk(b"tEXt", b"four\0gr\xf6\xdfe"),
                       chunk(b"iTXt", b"five"), chunk(b"zTXt", b"")).read_bytes()
    found = png_texts(data)
    assert {key: value for key, value in found.texts.items() if value} == {"one": words, "two": words, "four": "größe"}
    with Image.open(with_chunks(tmp_path / "b.png", plain, packed)) as picture:
        picture.load()
        assert {"one": picture.info["one"], "two": picture.info["two"]} == {"one": words, "two": words}
    for end in range(0, len(data), 7):
        png_texts(data[:end])


def test_texts_in_utf_8_where_latin_1_should_be(tmp_path: Path) -> None:
    words = "ein Boot für 猫"
    data = with_chunks(tmp_path / "a.png", chunk(b"tEXt", b"one\0" + words.encode()), zipped("two", words.encode()),
                       chunk(b"tEXt", "three\0für".encode("latin-1"))).read_bytes()
    assert png_texts(data).texts == {"one": words, "two": words, "three": "für"}


def test_texts_behind_the_pixels_and_exif_in_a_chunk(tmp_path: Path) -> None:
    plain = png(tmp_path / "plain.png").read_bytes()
    (tmp_path / "a.png").write_bytes(plain[:-12] + GOOD + plain[-12:])
    has(read_prompt(tmp_path / "a.png"), **BASE)
    exif = Image.Exif()
    exif[0x010E] = "x"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + A1111.encode("utf-16-be")
    Image.new("RGB", (16, 8)).save(tmp_path / "b.png", exif=exif)
    has(read_prompt(tmp_path / "b.png"), **BASE)
    lines = f"\nexif\n{len(exif.tobytes())}\n{exif.tobytes().hex()}\n".encode()
    has(read_prompt(with_chunks(tmp_path / "c.png", zipped("Raw profile type exif", lines))), **BASE)
    broken = chunk(b"eXIf", b"no exif at all")
    has(read_prompt(with_chunks(tmp_path / "d.png", broken, GOOD)), **BASE)


def test_damaged_pixels_do_not_matter(tmp_path: Path) -> None:
    whole = with_chunks(tmp_path / "a.png", GOOD).read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:-20])
    has(read_prompt(tmp_path / "a.png"), **BASE)
    assert pixel_size(tmp_path / "a.png") == (16, 8)
