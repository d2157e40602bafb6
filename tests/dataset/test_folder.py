"""Reading folders of pictures: names, encodings, masks, repeats, damaged files."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
from kit.pictures import noise_picture, put, write_pictures
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from atelier.dataset.folder import CaptionSource, FolderOptions, read_folder
from atelier.dataset.from_images import from_images
from atelier.dataset.types import Resolution, Sample, TrainingSet
from atelier.errors import AtelierError
from atelier.progress import Interrupted, Progress

FIXED = FolderOptions(captions=CaptionSource.FIXED, text="a fox")


def names(data: TrainingSet) -> list[str]:
    return [sample.image.name for sample in data.samples]


def test_natural_order_does_not_depend_on_the_listing_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b10.PNG", "b2.jpg", "B1.JPeG", "a.webp", "c é 3.png"):
        put(tmp_path / name)
    (tmp_path / "notes.md").write_text("no picture", encoding="utf-8")
    (tmp_path / ".hidden.png").write_bytes(b"no picture")
    put(tmp_path / ".thumbs" / "x.png")
    expected = ["a.webp", "B1.JPeG", "b2.jpg", "b10.PNG", "c é 3.png"]
    assert names(read_folder(tmp_path, FIXED)) == expected
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top: ((place, folders, files[::-1]) for place, folders, files in walk(top)))
    assert names(read_folder(tmp_path, FIXED)) == expected


@pytest.mark.parametrize(("raw", "caption"), [
    ("a fox, réd".encode(), "a fox, réd"),
    (b"\xef\xbb\xbfa fox\r\n", "a fox"),
    ("\ufeffa fox 狐".encode("utf-16-le"), "a fox 狐"),
    (b"  a fox,\r\n\r\n  in the   snow \n", "a fox, in the snow"),
])
def test_sidecars_are_read_as_editors_write_them(tmp_path: Path, raw: bytes, caption: str) -> None:
    put(tmp_path / "p0.png")
    (tmp_path / "p0.TXT").write_bytes(raw)
    assert read_folder(tmp_path).samples[0].captions == (caption,)


@pytest.mark.parametrize("raw", ["a fox".encode("utf-16-le"), "a fox".encode("utf-16-be"), b"a fox\0"])
def test_null_characters_in_a_caption_are_refused_with_the_file(tmp_path: Path, raw: bytes) -> None:
    put(tmp_path / "p0.png")
    (tmp_path / "p0.txt").write_bytes(raw)
    with pytest.raises(AtelierError, match=r"p0\.txt holds null characters.*UTF-8"):
        read_folder(tmp_path)
    with pytest.raises(AtelierError, match=r"caption of p0\.png holds a null character"):
        Sample(image=tmp_path / "p0.png", captions=("a\0",), digest="0", size=(32, 24))


@pytest.mark.parametrize(("folder", "repeats", "name"), [
    ("20240131_party", 1, "20240131_party"), ("2024_winter", 1, "2024_winter"), ("1999_old", 1, "1999_old"),
    ("12345_x", 1, "12345_x"), ("10_red fox", 10, "red fox"), ("1500_x", 1500, "x"), ("0010_x", 10, "x"),
])
def test_dates_in_folder_names_are_no_repeats(tmp_path: Path, folder: str, repeats: int, name: str,
                                              caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / folder / "a.png")
    put(tmp_path / folder / "b.png", 1)
    with caplog.at_level(logging.WARNING, "atelier"):
        data = read_folder(tmp_path, FolderOptions(captions=CaptionSource.TEMPLATE, template="{folder}"))
    assert [(sample.repeats, sample.captions[0]) for sample in data.samples] == [(repeats, name)] * 2
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (repeats == 1) and all(folder in text for text in said)


def test_folders_that_are_left_out_hold_no_pictures(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "runs" / "r1" / "loss.png", 1)
    put(tmp_path / "b" / "runs" / "c.png", 2)
    assert names(read_folder(tmp_path, FIXED, leave_out=[tmp_path / "runs", tmp_path])) == ["a.png", "c.png"]


def test_lines_are_variants_only_when_asked(tmp_path: Path) -> None:
    put(tmp_path / "p0.png")
    (tmp_path / "p0.caption").write_text("one\n\ntwo\n", encoding="utf-8")
    assert read_folder(tmp_path).samples[0].captions == ("one two",)
    lines = read_folder(tmp_path, FolderOptions(caption_lines=True, trigger="sks"))
    assert lines.samples[0].captions == ("sks, one", "sks, two")


def test_txt_comes_before_caption(tmp_path: Path) -> None:
    put(tmp_path / "p0.png")
    (tmp_path / "p0.caption").write_text("second", encoding="utf-8")
    (tmp_path / "p0.txt").write_text("first", encoding="utf-8")
    assert read_folder(tmp_path).samples[0].captions == ("first",)


def test_an_empty_txt_falls_back_to_caption(tmp_path: Path) -> None:
    put(tmp_path / "p0.png")
    (tmp_path / "p0.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "p0.caption").write_text("a fox", encoding="utf-8")
    assert read_folder(tmp_path, FolderOptions(text="anything")).samples[0].captions == ("a fox",)


@pytest.mark.parametrize(("picture", "sidecar"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_sidecars_are_found_in_composed_and_decomposed_form(tmp_path: Path, picture: Any, sidecar: Any) -> None:
    put(tmp_path / normalize(picture, "è café.png"))
    (tmp_path / normalize(sidecar, "è café.txt")).write_text("a café", encoding="utf-8")
    assert read_folder(tmp_path).samples[0].captions == ("a café",)


def test_all_missing_captions_are_named_at_once(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(32, 24)] * 4)
    (tmp_path / "p1.txt").unlink()
    (tmp_path / "p3.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(AtelierError, match=r"2 of 4 .*p1\.png, p3\.png.*: caption on the node, text in a conf"):
        read_folder(tmp_path)
    filled = read_folder(tmp_path, FolderOptions(text="a fox"))
    assert [sample.captions[0] for sample in filled.samples] == [
        "a fox, red, seen 0", "a fox", "a fox, red, seen 2", "a fox"]


def made_with(path: Path, prompt: str, seed: int = 0) -> Path:
    """A picture with a prompt in its metadata, as AUTOMATIC1111's web UI writes it."""
    info = PngInfo()
    info.add_text("parameters", f"{prompt}\nNegative prompt: dog\nSteps: 5, Seed: 1")
    noise_picture(32, 24, seed).save(path, pnginfo=info)
    return path


def test_pictures_are_captioned_with_the_prompts_they_were_made_with(tmp_path: Path) -> None:
    made_with(tmp_path / "a.png", "a fox,\n  in snow <lora:neon:0.5>, 狐")
    made_with(tmp_path / "b.png", "a cat", 1)
    (tmp_path / "b.txt").write_text("put right\nby hand", encoding="utf-8")
    made_with(tmp_path / "c.png", "a bear", 2)
    (tmp_path / "c.txt").write_text("\n", encoding="utf-8")
    options = FolderOptions(captions=CaptionSource("metadata"), trigger="sks")
    assert [sample.captions for sample in read_folder(tmp_path, options).samples] == [
        ("sks, a fox, in snow, 狐",), ("sks, put right by hand",), ("sks, a bear",)]
    assert read_folder(tmp_path, replace(options, caption_lines=True)).samples[1].captions == (
        "sks, put right", "sks, by hand")


def test_pictures_without_a_prompt_get_the_text_or_are_named(tmp_path: Path) -> None:
    made_with(tmp_path / "a.png", "a fox")
    made_with(tmp_path / "empty.png", "", 1)
    put(tmp_path / "photo.jpg", 2)
    options = FolderOptions(captions=CaptionSource.METADATA)
    with pytest.raises(AtelierError, match=r"2 of 3 .*no prompt in their metadata.*empty\.png, photo\.jpg"):
        read_folder(tmp_path, options)
    filled = read_folder(tmp_path, replace(options, text="a photo"))
    assert [sample.captions[0] for sample in filled.samples] == ["a fox", "a photo", "a photo"]


def test_damaged_pictures_are_left_out_with_captions_of_their_own_too(tmp_path: Path) -> None:
    made_with(tmp_path / "a.png", "a fox")
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "c.png").write_bytes(made_with(tmp_path / "d.png", "a cat", 1).read_bytes()[:-200])
    options = FolderOptions(captions=CaptionSource.METADATA)
    with pytest.raises(AtelierError, match=r"2 of 4 pictures cannot be used: b\.png.*c\.png"):
        read_folder(tmp_path, options)
    kept = read_folder(tmp_path, replace(options, unreadable="skip"))
    assert [sample.captions for sample in kept.samples] == [("a fox",), ("a cat",)]


def test_reading_prompts_can_be_stopped(tmp_path: Path) -> None:
    made_with(tmp_path / "a.png", "a fox")

    class Stopped(Progress):
        def check(self) -> None:
            raise Interrupted

        def phase(self, name: str, total: int) -> None:
            raise AssertionError("pictures were decoded after the user stopped")

    with pytest.raises(Interrupted):
        read_folder(tmp_path, FolderOptions(captions=CaptionSource.METADATA), Stopped())


def test_reading_says_how_far_it_is(tmp_path: Path) -> None:
    class Said(Progress):
        def __init__(self) -> None:
            self.events: list[tuple[str, int] | int] = []

        def phase(self, name: str, total: int) -> None:
            self.events.append((name, total))

        def advance(self, done: int, text: str = "") -> None:
            self.events.append(done)

    write_pictures(tmp_path, [(32, 24)] * 3)
    said = Said()
    read_folder(tmp_path, progress=said)
    assert said.events == [("reading", 3), 1, 2, 3]


def test_all_badly_encoded_captions_are_named_at_once(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(32, 24)] * 3)
    for name in ("p0.txt", "p2.txt"):
        (tmp_path / name).write_bytes("fuchsbaü".encode("latin-1"))
    with pytest.raises(AtelierError, match=r"p0\.txt.*UTF-8.*p2\.txt"):
        read_folder(tmp_path)


def test_template_fields_are_stem_trigger_and_folder(tmp_path: Path) -> None:
    put(tmp_path / "10_red fox" / "snow.png")
    options = FolderOptions(captions=CaptionSource.TEMPLATE, template="{trigger} as {folder} in {stem}", trigger="sks")
    assert read_folder(tmp_path, options).samples[0].captions == ("sks as red fox in snow",)


def test_the_name_of_the_chosen_folder_itself_loses_its_number(tmp_path: Path) -> None:
    """Its number is not a repeat count: `repeats` decides."""
    put(tmp_path / "10_red fox" / "snow.png", 0)
    put(tmp_path / "10_red fox" / "3_den" / "cub.png", 1)
    options = FolderOptions(captions=CaptionSource.TEMPLATE, template="{folder}", repeats=2)
    got = [(sample.captions[0], sample.repeats) for sample in read_folder(tmp_path / "10_red fox", options).samples]
    assert got == [("den", 6), ("red fox", 2)]


def test_kohya_folders_repeat(tmp_path: Path) -> None:
    put(tmp_path / "plain.png", 0)
    put(tmp_path / "5_fox" / "a.png", 1)
    put(tmp_path / "5_fox" / "deep" / "b.png", 2)
    put(tmp_path / "0_off" / "c.png", 3)
    put(tmp_path / "12monkeys" / "d.png", 4)
    options = FolderOptions(captions=CaptionSource.FIXED, text="a fox", repeats=2)
    got = {sample.image.name: sample.repeats for sample in read_folder(tmp_path, options).samples}
    assert got == {"plain.png": 2, "a.png": 10, "b.png": 10, "d.png": 2}
    flat = FolderOptions(captions=CaptionSource.FIXED, text="a fox", recursive=False)
    assert names(read_folder(tmp_path, flat)) == ["plain.png"]


def link(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target, target_is_directory=True)


def test_linked_folders_are_searched(tmp_path: Path) -> None:
    """Linked folders keep their link's name, repeats, masks and captions."""
    put(tmp_path / "elsewhere" / "a.png", 1)
    put(tmp_path / "elsewhere" / "deep" / "b.png", 2)
    mask = put(tmp_path / "elsewhere" / "a-mask.png")
    link(tmp_path / "set" / "5_fox", tmp_path / "elsewhere")
    options = FolderOptions(captions=CaptionSource.TEMPLATE, template="{folder}")
    samples = read_folder(tmp_path / "set", options).samples
    assert [(sample.captions[0], sample.repeats) for sample in samples] == [("fox", 5), ("deep", 5)]
    assert samples[0].mask is not None and samples[0].mask.samefile(mask)


def test_circular_links_are_not_followed_forever(tmp_path: Path) -> None:
    """No picture counts twice: if several paths lead to a folder, the one without links is used."""
    put(tmp_path / "around" / "never.png", 1)
    root = tmp_path / "around" / "set"
    put(root / "z" / "3_fox" / "a.png", 2)
    link(root / "z" / "3_fox" / "up", root)
    link(root / "z" / "self", root / "z" / "self")
    link(root / "z" / "above", tmp_path / "around")
    link(root / "9_a", root / "z" / "3_fox")
    link(root / "gone", tmp_path / "nothing")
    put(tmp_path / "one" / "b.png", 3)
    put(tmp_path / "two" / "c.png", 4)
    link(tmp_path / "one" / "other", tmp_path / "two")
    link(tmp_path / "two" / "other", tmp_path / "one")
    link(root / "one", tmp_path / "one")
    got = [(sample.image.relative_to(root).as_posix(), sample.repeats) for sample in read_folder(root, FIXED).samples]
    assert got == [("one/b.png", 1), ("one/other/c.png", 1), ("z/3_fox/a.png", 3)]


def test_a_linked_folder_of_prior_pictures_is_left_out(tmp_path: Path) -> None:
    put(tmp_path / "set" / "a.png", 1)
    put(tmp_path / "regularisation" / "p.png", 2)
    link(tmp_path / "set" / "prior", tmp_path / "regularisation")
    data = read_folder(tmp_path / "set", replace(FIXED, prior=tmp_path / "regularisation", prior_text="a beast"))
    assert [(sample.image.name, sample.prior) for sample in data.samples] == [("a.png", False), ("p.png", True)]


def test_all_unreadable_pictures_are_named_in_one_error_or_skipped(tmp_path: Path,
                                                                  caplog: pytest.LogCaptureFixture) -> None:
    write_pictures(tmp_path, [(32, 24)] * 4)
    (tmp_path / "p1.png").write_bytes(b"nothing")
    (tmp_path / "p2.png").write_bytes((tmp_path / "p2.png").read_bytes()[:-40])
    with pytest.raises(AtelierError, match=r"2 of 4 .*p1\.png \(.*p2\.png \("):
        read_folder(tmp_path)
    with caplog.at_level(logging.WARNING, "atelier"):
        data = read_folder(tmp_path, FolderOptions(unreadable="skip"))
    assert names(data) == ["p0.png", "p3.png"]
    assert [path.name for path in data.skipped] == ["p1.png", "p2.png"]
    assert "p1.png" in caplog.text and "p2.png" in caplog.text
    for name in ("p0.png", "p3.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(AtelierError, match="4 of 4"):
        read_folder(tmp_path, FolderOptions(unreadable="skip"))


def test_no_pictures_is_an_error_that_knows_of_subfolders(tmp_path: Path) -> None:
    put(tmp_path / "5_fox" / "a.png")
    with pytest.raises(AtelierError, match="recursive"):
        read_folder(tmp_path, FolderOptions(captions=CaptionSource.FIXED, text="x", recursive=False))
    with pytest.raises(AtelierError, match="not a folder"):
        read_folder(tmp_path / "missing", FIXED)


def test_digest_depends_on_content_not_on_paths(tmp_path: Path) -> None:
    first = write_pictures(tmp_path / "first", [(32, 24)] * 2)
    moved = tmp_path / "mövéd to"
    shutil.copytree(first, moved)
    data = read_folder(first)
    assert read_folder(moved).digest == data.digest
    (moved / "p0.txt").write_text("another caption", encoding="utf-8")
    changed = read_folder(moved)
    assert changed.digest != data.digest and changed.samples[0].digest == data.samples[0].digest
    noise_picture(32, 24, 9).save(first / "p1.png")
    assert read_folder(first).samples[1].digest != data.samples[1].digest
    digests = {read_folder(first, options).digest for options in (
        FolderOptions(), FolderOptions(flip=True), FolderOptions(repeats=2), FolderOptions(trigger="sks"),
        FolderOptions(resolution=Resolution(256)))}
    assert len(digests) == 5


def test_reading_can_be_interrupted(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(32, 24)] * 3)

    class Stop(Progress):
        def check(self) -> None:
            raise Interrupted

    with pytest.raises(Interrupted):
        read_folder(tmp_path, FolderOptions(), Stop())


@pytest.mark.parametrize(("values", "field"), [
    ({"captions": "magic"}, "captions"), ({"unreadable": "maybe"}, "unreadable"), ({"repeats": 0}, "repeats"),
    ({"captions": "template", "template": "{x}"}, "template"), ({"captions": "fixed"}, "text")])
def test_options_name_their_bad_field(values: dict, field: str) -> None:
    with pytest.raises(AtelierError, match=field):
        FolderOptions(**values)


def test_pictures_in_memory_are_written_once_by_content(tmp_path: Path) -> None:
    images = [noise_picture(32, 24, 0), noise_picture(32, 24, 1), noise_picture(32, 24, 0)]
    folder = tmp_path / "handed över"
    data = from_images(images, ["a", "b", "c"], folder, trigger="sks")
    assert [sample.captions for sample in data.samples] == [("sks, a",), ("sks, b",), ("sks, c",)]
    files = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(files) == 2
    with Image.open(data.samples[1].image) as image:
        assert (np.asarray(image) == np.asarray(images[1])).all()
    again = from_images(images, ["same"], folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == files
    assert {sample.captions for sample in again.samples} == {("same",)}
    transparent = from_images([Image.new("RGBA", (8, 8), (0, 0, 0, 128))], ["x"], folder)
    with Image.open(transparent.samples[0].image) as image:
        assert image.mode == "RGB" and image.getpixel((0, 0)) == (127, 127, 127)
    with pytest.raises(AtelierError, match="2 captions were given for 3"):
        from_images(images, ["a", "b"], folder)
    with pytest.raises(AtelierError, match="empty"):
        from_images([], ["a"], folder)


@pytest.mark.parametrize("values", [{"captions": ()}, {"captions": ("x",), "repeats": 0},
                                    {"captions": ("x",), "mask": Path("m.png")}])
def test_a_sample_checks_itself(values: dict) -> None:
    with pytest.raises(AtelierError, match=r"a\.png"):
        Sample(image=Path("a.png"), digest="00", size=(8, 8), **values)
