"""Loss masks and prior pictures in folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from kit.pictures import put, write_pictures

from atelier.dataset.folder import CaptionSource, FolderOptions, read_folder
from atelier.errors import AtelierError

FIXED = FolderOptions(captions=CaptionSource.FIXED, text="a fox")


def test_masks_beside_and_in_a_folder(tmp_path: Path) -> None:
    for stem in ("a", "b", "c"):
        put(tmp_path / "set" / f"{stem}.jpg")
    beside = put(tmp_path / "set" / "a-mask.png")
    put(tmp_path / "set" / "lone-mask.png")
    other = put(tmp_path / "masks" / "b.png", 1)
    got = {sample.image.name: sample.mask for sample in read_folder(tmp_path / "set", FIXED).samples}
    assert got == {"a.jpg": beside, "b.jpg": None, "c.jpg": None, "lone-mask.png": None}
    options = FolderOptions(captions=CaptionSource.FIXED, text="a fox", masks=tmp_path / "masks")
    data = read_folder(tmp_path / "set", options)
    assert {sample.image.name: sample.mask for sample in data.samples} == {
        "a.jpg": beside, "b.jpg": other, "c.jpg": None, "lone-mask.png": None}
    assert data.digest != read_folder(tmp_path / "set", FIXED).digest


def test_masks_of_onetrainer_are_masks(tmp_path: Path) -> None:
    put(tmp_path / "set" / "a.jpg")
    put(tmp_path / "set" / "b.jpg")
    beside = put(tmp_path / "set" / "a-masklabel.png")
    other = put(tmp_path / "masks" / "b-masklabel.png", 1)
    options = replace(FIXED, masks=tmp_path / "masks")
    got = {sample.image.name: sample.mask for sample in read_folder(tmp_path / "set", options).samples}
    assert got == {"a.jpg": beside, "b.jpg": other}


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "a.png", size=(32, 24))
    put(tmp_path / "a-mask.png", size=(24, 32))
    with pytest.raises(AtelierError, match=r"a\.png.*mask.*24 × 32.*32 × 24"):
        read_folder(tmp_path, FIXED)


def test_a_masks_folder_without_matching_masks_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "set" / "a.png")
    put(tmp_path / "masks" / "other.png")
    with pytest.raises(AtelierError, match="no mask"):
        read_folder(tmp_path / "set", FolderOptions(captions=CaptionSource.FIXED, text="x", masks=tmp_path / "masks"))


def test_prior_pictures_have_their_own_captions(tmp_path: Path) -> None:
    write_pictures(tmp_path, [(32, 24)])
    put(tmp_path / "prior" / "x.png", 5)
    put(tmp_path / "prior" / "y.png", 6)
    (tmp_path / "prior" / "x.txt").write_text("an animal", encoding="utf-8")
    options = FolderOptions(trigger="sks", prior=tmp_path / "prior", prior_text="a beast")
    got = [(sample.captions, sample.prior) for sample in read_folder(tmp_path, options).samples]
    assert got == [(("sks, a fox, red, seen 0",), False), (("an animal",), True), (("a beast",), True)]
    with pytest.raises(AtelierError, match=r"y\.png.*: prior_caption on the node, prior_text in a conf"):
        read_folder(tmp_path, FolderOptions(prior=tmp_path / "prior"))
