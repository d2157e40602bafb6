"""A folder of pictures without captions, and what a person should know of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.pictures import noise_picture

from atelier.dataset.advice import advice
from atelier.dataset.captions import typical_caption
from atelier.dataset.folder import CaptionSource, FolderOptions, read_folder
from atelier.errors import AtelierError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures in `my_dog` and one in `my_dog/5_in_snow`."""
    for place in ("my_dog/a.png", "my_dog/b.png", "my_dog/5_in_snow/c.png"):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        noise_picture(32, 24, len(place)).save(path)
    return tmp_path / "my_dog"


def test_without_caption_files_a_picture_is_called_by_its_folder_and_a_note_says_so(folder: Path) -> None:
    data = read_folder(folder)
    assert {sample.image.name: sample.captions for sample in data.samples} == {
        "a.png": ("my dog",), "b.png": ("my dog",), "c.png": ("in snow",)}
    note, = data.notes
    assert str(folder) in note and "folder's name" in note
    assert advice(data) == [note]


def test_a_trigger_comes_before_the_folders_name(folder: Path) -> None:
    data = read_folder(folder, FolderOptions(trigger="ohwx"))
    assert {sample.captions for sample in data.samples} == {("ohwx",)}
    assert "'ohwx'" in data.notes[0]


def test_a_note_does_not_count_as_content(folder: Path) -> None:
    noted = read_folder(folder, FolderOptions(trigger="ohwx"))
    same = read_folder(folder, FolderOptions(captions=CaptionSource.FIXED, text="ohwx", trigger="ohwx"))
    assert noted.notes and not same.notes
    assert noted.digest == same.digest


@pytest.mark.parametrize("file", ["a.txt", "b.caption", "misnamed.TXT", "metadata.jsonl", "5_in_snow/c.txt"])
def test_where_somebody_wrote_captions_a_missing_one_is_an_error(folder: Path, file: str) -> None:
    (folder / file).write_text('{"file_name": "a.png", "text": "x"}' if file.endswith("jsonl") else "x", "utf-8")
    with pytest.raises(AtelierError, match=r"of 3 pictures have no caption"):
        read_folder(folder)


def test_one_picture_is_warned_of(folder: Path) -> None:
    fixed = FolderOptions(captions=CaptionSource.FIXED, text="a dog")
    assert advice(read_folder(folder, fixed)) == []
    alone = read_folder(folder / "5_in_snow", fixed)
    assert "only one picture" in advice(alone)[0]
    # Pictures to preserve what the model knows are not learnt from.
    kept = FolderOptions(captions=CaptionSource.FIXED, text="a dog", prior=folder, prior_text="an animal")
    assert "only one picture" in advice(read_folder(folder / "5_in_snow", kept))[0]


def test_a_typical_caption_is_that_of_a_picture_to_learn(folder: Path) -> None:
    assert typical_caption(read_folder(folder, FolderOptions(trigger="ohwx"))) == "ohwx"
    kept = FolderOptions(captions=CaptionSource.FIXED, text="a dog", prior=folder, prior_text="an animal")
    assert typical_caption(read_folder(folder / "5_in_snow", kept)) == "a dog"
