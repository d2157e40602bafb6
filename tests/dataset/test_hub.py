"""Hub data sets through the `datasets` package, with local data sets in place of remote ones."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, load_dataset
from datasets import Image as ImageFeature
from datasets.utils.logging import disable_progress_bar
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from atelier.dataset.columns import Columns
from atelier.dataset.hub import HubQuery, fetch, read_hub
from atelier.errors import AtelierError, MissingPackage
from atelier.progress import Interrupted, Progress

STYLES = ["Abstract_Expressionism", "Impressionism", "Post_Impressionism"]
FEATURES = Features({"image": ImageFeature(), "artist": ClassLabel(names=["claude-monet", "unknown_artist"]),
                     "style": ClassLabel(names=STYLES), "year": Value("int64"), "captions": List(Value("string"))})
ROWS, SHARDS = 12, 5
disable_progress_bar()


def row(number: int) -> dict[str, Any]:
    """Every third row is impressionist; the red channel holds the row number."""
    return {"image": Image.new("RGB", (16, 12), (number, 0, 200)), "artist": number % 2, "style": number % 3,
            "year": 1870 + number % 4, "captions": [f"picture {number}", f"painting {number}"]}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of Parquet files, as on the hub."""
    folder = tmp_path_factory.mktemp("hub") / "wiki art ü"
    folder.mkdir()
    for shard in range(SHARDS):
        rows = [row(shard * ROWS + i) for i in range(ROWS)]
        name = f"train-{shard:05d}-of-{SHARDS:05d}.parquet"
        Dataset.from_list(rows, features=FEATURES).to_parquet(str(folder / name))
    return folder


def reds(fetched: tuple[Any, ...]) -> list[int]:
    pixels = []
    for item in fetched:
        with Image.open(item.path) as picture:
            pixels.append(picture.getpixel((3, 3))[0])
    return pixels


@pytest.mark.parametrize("value", ["Impressionism", "impressionism", "1"])
def test_a_class_is_chosen_by_name(shards: Path, tmp_path: Path, value: str) -> None:
    fetched = fetch(HubQuery(source=str(shards), column="style", value=value, limit=6), tmp_path)
    assert reds(fetched) == [1, 4, 7, 10, 13, 16]


def test_names_with_underscores_and_dashes(shards: Path, tmp_path: Path) -> None:
    fetched = fetch(HubQuery(source=str(shards), column="style", value="post impressionism", limit=2,
                             caption="{style} by {artist}, {year}"), tmp_path)
    assert [item.captions for item in fetched] == [("Post Impressionism by claude-monet, 1872",),
                                                   ("Post Impressionism by unknown artist, 1871",)]


def test_other_columns_are_compared_as_text(shards: Path, tmp_path: Path) -> None:
    assert reds(fetch(HubQuery(source=str(shards), column="year", value="1873", limit=3), tmp_path)) == [3, 7, 11]
    assert reds(fetch(HubQuery(source=str(shards), column="captions", value="Painting 40", limit=3), tmp_path)) == [40]


def test_a_column_of_texts_gives_several_captions(shards: Path, tmp_path: Path) -> None:
    usual, template = (fetch(HubQuery(source=str(shards), limit=1, caption=text), tmp_path)[0].captions
                       for text in ("", "a {style} {captions}"))
    assert usual == ("picture 0", "painting 0")
    assert template == ("a Abstract Expressionism picture 0", "a Abstract Expressionism painting 0")


def test_default_texts_for_missing_values(tmp_path: Path) -> None:
    rows = [{**row(0), "artist": artist, "title": title} for artist, title in ((0, "Sunrise"), (-1, ""), (1, None))]
    Dataset.from_list(rows, features=Features({**FEATURES, "title": Value("string")})).save_to_disk(tmp_path / "data")
    fetched = fetch(HubQuery(source=str(tmp_path / "data"),
                             caption="'{title|artwork}' by {artist|somebody}{year|}{place|?}"),
                    tmp_path / "cache")
    assert [item.captions[0] for item in fetched] == [
        "'Sunrise' by claude-monet1870?", "'artwork' by somebody1870?", "'artwork' by unknown artist1870?"]


@pytest.mark.parametrize(("template", "caption"), [
    ("by {meta.artist}, {{sic}}", "by Monet, {sic}"), ("{meta.artist|nobody} and {no.name|nobody: 1}",
                                                        "Monet and nobody: 1"),
    ("{tags[0]}", "sky"), ("a {0}", "a zero"), ("{date:year}", "1872"), ("{text!r}", "raw"),
    ("{braces}", "{meta.artist}"),
])
def test_columns_of_any_name(template: str, caption: str) -> None:
    """Column names may contain dots, brackets and digits, as those of nested fields do."""
    row = {"meta.artist": "Monet", "tags[0]": "sky", "0": "zero", "date:year": 1872, "text!r": "raw",
           "braces": "{meta.artist}"}
    assert Columns("data", tuple(row), (), {}).captions(template)(row) == [caption]


def test_the_likeliest_caption_column_is_taken_and_without_one_a_template_is_asked_for() -> None:
    row = {"title": "t", "text": "x", "caption": "c", "year": 1872}
    assert Columns("data", tuple(row), (), {}).captions("")(row) == ["c"]
    assert Columns("data", ("title", "text"), (), {}).captions("")(row) == ["x"]
    with pytest.raises(AtelierError, match=r"^data has no column that is usually a caption\. .*: image, year\."):
        Columns("data", ("image", "year"), ("image",), {}).captions("")


def test_few_pictures_do_not_cost_the_whole_data_set(shards: Path, tmp_path: Path) -> None:
    """Unneeded shards are replaced by garbage, so that opening one fails."""
    folder = Path(shutil.copytree(shards, tmp_path / "copy"))
    for shard in range(2, SHARDS):
        (folder / f"train-{shard:05d}-of-{SHARDS:05d}.parquet").write_bytes(b"not a Parquet file")
    query = HubQuery(source=str(folder), column="style", value="Impressionism", limit=8)
    assert reds(fetch(query, tmp_path / "cache")) == [1, 4, 7, 10, 13, 16, 19, 22]
    with pytest.raises(AtelierError, match="cannot be read"):
        fetch(HubQuery(source=str(folder), column="style", value="Impressionism", limit=9), tmp_path / "cache")
    found = [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".part"]
    assert len(found) == 1, "the failed one leaves nothing under its name"


def test_rows_that_do_not_match_are_not_decoded_and_reading_stops(shards: Path, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    from atelier.pictures import decode as images

    class Counting(Progress):
        rows = 0

        def check(self) -> None:
            self.rows += 1

    checked: list[Path] = []
    original = images.check_picture
    monkeypatch.setattr(images, "check_picture", lambda path, data: checked.append(path) or original(path, data))
    counting = Counting()
    fetch(HubQuery(source=str(shards), column="style", value="Impressionism", limit=4), tmp_path, counting)
    assert len(checked) == 4
    assert counting.rows == 11, "rows 0 to 10: the fourth match is row 10"


def test_a_repeated_query_reads_the_cache_only(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = HubQuery(source=str(shards), limit=3)
    first = fetch(query, tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert fetch(query, tmp_path) == first
    with pytest.raises(MissingPackage, match="pip install datasets"):
        fetch(HubQuery(source=str(shards), limit=4), tmp_path)


def test_a_data_set_of_the_hub_is_found_again_from_another_folder(shards: Path, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    asked, load = [], datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda source, **options: asked.append(source) or load(
        str(shards), **options))
    query = HubQuery(source="painters/wiki-art", limit=1)
    first = fetch(query, tmp_path / "cache")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert fetch(query, tmp_path / "cache") == first
    assert asked == ["painters/wiki-art"]


def test_a_local_folder_that_changed_is_read_again(tmp_path: Path) -> None:
    for name in ("red fox", "owl"):
        (tmp_path / "animals" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (len(name), 0, 0)).save(tmp_path / "animals" / name / "1.png")
    query = HubQuery(source=str(tmp_path / "animals"), column="label", value="red fox", caption="a {label}")
    fetched = fetch(query, tmp_path / "cache")
    assert reds(fetched) == [7] and fetched[0].captions == ("a red fox",)
    assert fetched[0].path.read_bytes() == (tmp_path / "animals" / "red fox" / "1.png").read_bytes(), "the very bytes"
    Image.new("RGB", (8, 8), (99, 0, 0)).save(tmp_path / "animals" / "red fox" / "2.png")
    assert reds(fetch(query, tmp_path / "cache")) == [7, 99]


def test_data_sets_saved_to_disk(tmp_path: Path) -> None:
    data = Dataset.from_list([row(number) for number in range(5)], features=FEATURES)
    data.save_to_disk(str(tmp_path / "one"))
    DatasetDict({"train": data, "test": data.select([4])}).save_to_disk(str(tmp_path / "splits"))
    assert reds(fetch(HubQuery(source=str(tmp_path / "one"), limit=2), tmp_path / "cache")) == [0, 1]
    assert reds(fetch(HubQuery(source=str(tmp_path / "splits"), split="test"), tmp_path / "cache")) == [4]
    with pytest.raises(AtelierError, match=r"\(dev\) cannot be read.*\['train', 'test'\]"):
        fetch(HubQuery(source=str(tmp_path / "splits"), split="dev"), tmp_path / "cache")


def test_unreadable_pictures_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row(number) for number in range(3)]
    png = (tmp_path / "torn.png")
    rows[1]["image"].save(png)
    rows[1]["image"] = {"bytes": png.read_bytes()[:50], "path": None}
    rows.insert(1, {**rows[0], "image": None})
    (tmp_path / "data").mkdir()
    Dataset.from_list(rows, features=FEATURES).to_parquet(str(tmp_path / "data" / "train.parquet"))
    assert reds(fetch(HubQuery(source=str(tmp_path / "data")), tmp_path / "cache")) == [0, 2]
    assert "row 2" in caplog.text and "row 3" in caplog.text


def test_pictures_with_a_large_text_are_taken(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("workflow", "x" * 3_000_000, zip=True)
    (tmp_path / "data").mkdir()
    row(5)["image"].save(tmp_path / "data" / "a.png", pnginfo=info)
    fetched = fetch(HubQuery(source=str(tmp_path / "data"), caption="a picture"), tmp_path / "cache")
    assert [item.path.name for item in fetched] == ["00001.png"]


def test_a_training_set_with_a_trigger(shards: Path, tmp_path: Path) -> None:
    data = read_hub(HubQuery(source=str(shards), limit=2, caption="{captions}"), tmp_path, trigger="sks", repeats=3)
    assert [sample.captions for sample in data.samples] == [("sks, picture 0", "sks, painting 0"),
                                                            ("sks, picture 1", "sks, painting 1")]
    first = data.samples[0]
    assert (first.size, first.repeats, data.trigger) == ((16, 12), 3, "sks")
    assert first.digest == hashlib.sha256(first.image.read_bytes()).hexdigest()


@pytest.mark.parametrize(("query", "message"), [
    ({"column": "style", "value": "Cubism"}, "no class 'Cubism'.*Abstract_Expressionism, Impressionism"),
    ({"column": "genre", "value": "portrait"}, "no column 'genre'.*image, artist, style, year, captions"),
    ({"caption": "by {title}"}, "no column 'title'"),
    ({"caption": "by {artist.names}"}, "no column 'artist.names'"),
    ({"caption": "by {artist!r}"}, "no column 'artist!r'"),
    ({"caption": "by {artist"}, "template .* cannot be read"),
    ({"image_column": "picture"}, "no column of pictures called 'picture'.*image"),
    ({"column": "year", "value": "1999"}, "None of the 60 rows .* has year = '1999'"),
    ({"split": "test"}, r"\(test\) cannot be read.*Available splits"),
])
def test_wrong_queries_say_what_there_is(shards: Path, tmp_path: Path, query: dict[str, str], message: str) -> None:
    with pytest.raises(AtelierError, match=message):
        fetch(HubQuery(source=str(shards), **query), tmp_path)  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "content", "said"), [
    ("rows.csv", "url,words\na.png,a fox\n", r"data has no column of pictures\. .*all columns: url, words\."),
    ("rows.json", '[{"url": "a", "words": "b"}]', r"data has no column of pictures\. .*all columns: url, words\."),
    ("rows.csv", "", r"\(train\) cannot be read"),
])
def test_a_table_without_a_schema_says_what_columns_it_has(name: str, content: str, said: str, tmp_path: Path) -> None:
    """What a stream of CSV holds is known from its first rows only."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text(content, encoding="utf-8")
    with pytest.raises(AtelierError, match=said):
        fetch(HubQuery(source=str(tmp_path / "data")), tmp_path / "cache")


@pytest.mark.parametrize(("query", "message"), [
    ({"source": " "}, "source is empty"), ({"source": "a/b", "limit": 0}, "limit is 0"),
    ({"source": "a/b", "column": "style"}, "column is 'style' and value is ''"),
])
def test_impossible_queries_name_the_field(query: dict[str, Any], message: str) -> None:
    with pytest.raises(AtelierError, match=message):
        HubQuery(**query)


def test_an_unreachable_hub_is_explained(tmp_path: Path) -> None:
    with pytest.raises(AtelierError, match=r"'nobody/nothing' \(train\) cannot be read.*network"):
        fetch(HubQuery(source="nobody/nothing"), tmp_path)


class Stopping(Progress):
    """Interrupts after a number of checks; records the checks and the first reported progress."""

    def __init__(self, after: int = sys.maxsize) -> None:
        self.after, self.rows = after, 0
        self.begun: int | None = None

    def check(self) -> None:
        if self.rows == self.after:
            raise Interrupted
        self.rows += 1

    def advance(self, done: int, text: str = "") -> None:
        self.begun = done if self.begun is None else self.begun


@pytest.mark.parametrize("after", [1, 3, ROWS, ROWS + 1, 2 * ROWS + 5])
@pytest.mark.parametrize("saved", [False, True])
def test_an_interrupted_fetch_resumes(shards: Path, tmp_path: Path, after: int, saved: bool) -> None:
    """It gives the same files as an uninterrupted fetch, and rereads only rows after the last match."""
    source = shards
    if saved:
        source = tmp_path / "saved"
        load_dataset(str(shards), split="train").save_to_disk(str(source))
    query = HubQuery(source=str(source), column="style", value="1", limit=15)
    whole, unbroken = fetch(query, tmp_path / "whole"), Stopping()
    fetch(query, tmp_path / "counted", unbroken)
    cache = tmp_path / "cache"
    with pytest.raises(Interrupted):
        fetch(query, cache, Stopping(after))
    kept = (after + 1) // 3  # rows 1, 4, 7, …
    assert [path.suffix for path in cache.iterdir()] == [".part"] * bool(kept)
    resumed = Stopping()
    again = fetch(query, cache, resumed)
    assert resumed.begun == kept and resumed.rows == unbroken.rows - max(0, 3 * kept - 1)
    assert [(item.path.name, item.captions, item.path.read_bytes()) for item in again] == [
        (item.path.name, item.captions, item.path.read_bytes()) for item in whole]
    (place,) = cache.iterdir()
    assert sorted(path.name for path in place.iterdir()) == [*(item.path.name for item in whole), "captions.json"]


def test_resuming_with_another_release_of_datasets(shards: Path, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved stream positions may be incompatible, so rows are counted instead."""
    query = HubQuery(source=str(shards), column="style", value="1", limit=12)
    with pytest.raises(Interrupted):
        fetch(query, tmp_path, Stopping(17))
    (stopped,) = tmp_path.rglob("stopped.json")
    captions, (scanned, found, state) = json.loads(stopped.read_text(encoding="utf-8"))
    assert (len(captions), scanned, found) == (6, 17, 6)
    stopped.write_text(json.dumps([captions, (scanned, found, {**state, "rows": "of another form"})]), encoding="utf-8")
    monkeypatch.setattr("datasets.__version__", "99.0")
    resumed = Stopping()
    assert reds(fetch(query, tmp_path, resumed)) == list(range(1, 36, 3))
    assert resumed.begun == 6


def test_resuming_does_not_read_everything_again(shards: Path, tmp_path: Path) -> None:
    """Interrupted in the fourth file, it reopens the third and fourth only: the second is garbage by then."""
    folder = Path(shutil.copytree(shards, tmp_path / "copy"))
    query = HubQuery(source=str(folder), limit=40)
    with pytest.raises(Interrupted):
        fetch(query, tmp_path / "cache", Stopping(3 * ROWS + 3))
    passed = folder / f"train-00001-of-{SHARDS:05d}.parquet"
    status = passed.stat()
    passed.write_bytes(bytes(status.st_size))
    os.utime(passed, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert reds(fetch(query, tmp_path / "cache")) == list(range(40))


def test_an_interrupted_fetch_is_not_mistaken_for_another(shards: Path, tmp_path: Path) -> None:
    query = HubQuery(source=str(shards), limit=9)
    with pytest.raises(Interrupted):
        fetch(query, tmp_path, Stopping(4))
    other = Stopping()
    fetch(replace(query, limit=8), tmp_path, other)
    assert other.begun == 0
    for after in (1, 2):  # stopped again and again, it keeps what it had
        with pytest.raises(Interrupted):
            fetch(query, tmp_path, Stopping(after))
    last = Stopping()
    assert reds(fetch(query, tmp_path, last)) == list(range(9))
    assert last.begun == 7


def test_an_interrupt_before_the_first_picture_leaves_nothing(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fetch(HubQuery(source=str(shards)), tmp_path, Stopping(0))
    assert not list(tmp_path.iterdir())


def test_the_reference_query_of_wikiart(shards: Path, tmp_path: Path) -> None:
    """Filter by number, first rows, template over class columns: what its own code selects by reading everything."""
    everything = load_dataset(str(shards), split="train").filter(lambda row: row["style"] == 1).select(range(5))
    artists = FEATURES["artist"].names
    expected = [f"pencil sketch of impressionist painting by {artists[r['artist']].replace('_', ' ')}"
                for r in everything]
    fetched = fetch(HubQuery(source=str(shards), column="style", value="Impressionism", limit=5,
                             caption="pencil sketch of impressionist painting by {artist}"), tmp_path)
    assert [item.captions[0] for item in fetched] == expected
    assert reds(fetched) == [r["image"].getpixel((0, 0))[0] for r in everything]
    assert json.loads(next(tmp_path.rglob("captions.json")).read_text(encoding="utf-8"))["00001.png"] == [expected[0]]


@pytest.mark.parametrize("where", ["{outside}", "file://{outside}", "https://127.0.0.1:9/a.png", "../private.png",
                                   "zip://a.png::{outside}.zip"])
def test_a_row_cannot_name_a_file_outside_its_data_set(tmp_path: Path, caplog: pytest.LogCaptureFixture, where: str
                                                       ) -> None:
    """A stranger's data set could otherwise have a person's own pictures, or any address, read."""
    import pyarrow as pa
    from pyarrow import parquet

    outside, file = tmp_path / "private.png", tmp_path / "data" / "train.parquet"
    row(5)["image"].save(outside)
    file.parent.mkdir()
    Dataset.from_list([row(0), row(1)], features=FEATURES).to_parquet(str(file))
    table = parquet.read_table(file)
    index = table.schema.get_field_index("image")
    own, _ = table.column(index).to_pylist()
    pictures = pa.array([own, {"bytes": None, "path": where.format(outside=outside)}], table.schema.field(index).type)
    parquet.write_table(table.set_column(index, table.schema.field(index), pictures), file)
    assert reds(fetch(HubQuery(source=str(tmp_path / "data")), tmp_path / "cache")) == [0]
    assert "not part of the data set" in caplog.text


@pytest.mark.parametrize(("path", "belongs"), [
    ("hf://datasets/a/b@1f/data/1.png", True), ("zip://1.png::hf://datasets/a/b@1f/x.zip", True),
    ("hf://datasets/a/bc@1f/1.png", False), ("hf://datasets/x/y@1/a/b@1", False), ("/etc/passwd", False),
    ("hf://datasets/a/b@1f/x.zip::/etc/passwd", False)])
def test_rows_of_the_hub_name_files_of_their_own_data_set(path: str, belongs: bool) -> None:
    from atelier.dataset.hub import _belongs

    assert _belongs(path, "a/b") is belongs
