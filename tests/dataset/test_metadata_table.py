"""Captions from metadata.jsonl and metadata.csv, as the `datasets` library lays them out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import pytest
from kit.pictures import noise_picture

from atelier.dataset.folder import read_folder
from atelier.errors import AtelierError

ROWS = [("a.png", "a fox, red"), ("sub/b.png", 'a "big" owl'), ("c é.png", "ein Bär\nim Schnee")]


def pictures(folder: Path) -> Path:
    for seed, (name, _) in enumerate(ROWS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise_picture(32, 24, seed).save(folder / name)
    return folder


def write(folder: Path, kind: str, column: str = "text") -> None:
    if kind == "jsonl":
        lines = [json.dumps({"file_name": name, column: text}) for name, text in ROWS]
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        with (folder / "metadata.csv").open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows([("file_name", column), *ROWS])


def captions(folder: Path) -> dict[str, str]:
    return {sample.image.relative_to(folder).as_posix(): sample.captions[0]
            for sample in read_folder(folder).samples}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_the_same_captions_as_the_datasets_library(kind: str, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "set")
    write(folder, kind)
    got = captions(folder)
    rows = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(got.values()) == sorted(" ".join(row["text"].split()) for row in rows)
    assert got["a.png"] == "a fox, red"


def test_a_text_file_comes_first_and_the_nearest_table_next(tmp_path: Path) -> None:
    folder = pictures(tmp_path)
    write(folder, "jsonl", "caption")
    (folder / "a.txt").write_text("by hand", encoding="utf-8")
    row = '{"file_name": "b.png", "prompt": ["near", "second"]}'
    (folder / "sub" / "metadata.jsonl").write_text(row, encoding="utf-8")
    assert captions(folder) == {"a.png": "by hand", "sub/b.png": "near", "c é.png": "ein Bär im Schnee"}


def test_a_picture_that_no_row_names_has_no_caption(tmp_path: Path) -> None:
    folder = pictures(tmp_path)
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "x"}\n\n', encoding="utf-8")
    with pytest.raises(AtelierError, match=r"2 of 3 pictures have no caption .*metadata\.jsonl"):
        read_folder(folder)


@pytest.mark.parametrize(("name", "content", "said"), [
    ("metadata.jsonl", '{"file_name": "a.png"}\n{', "line 2, is not readable JSON"),
    ("metadata.jsonl", "[1]", "line 1, is not a JSON object"), ("metadata.jsonl", "[" * 99999, "nested"),
    ("metadata.jsonl", '{"file_name": 3, "text": "x"}', "file_name is 3"),
    ("metadata.csv", 'file_name,text\na.png,"' + "x" * 200_000 + '"', "not readable CSV"),
])
def test_a_damaged_table_is_named_with_its_line(name: str, content: str, said: str, tmp_path: Path) -> None:
    (pictures(tmp_path) / name).write_text(content, encoding="utf-8")
    with pytest.raises(AtelierError, match=said) as caught:
        read_folder(tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_a_table_in_another_encoding_is_named(name: str, tmp_path: Path) -> None:
    (pictures(tmp_path) / name).write_bytes('{"file_name": "a.png", "text": "Bär"}'.encode("latin-1"))
    with pytest.raises(AtelierError, match=rf"{name} cannot be read: .*Save it as UTF-8 text\."):
        read_folder(tmp_path)
