"""Read a training set from a data set of the Hugging Face hub, or from a local one, by streaming.

Rows are streamed until enough match: a hundred pictures of a 33 GB data set cost the rows before the hundredth match,
not 33 GB. Pictures are cached as the data set's own bytes, so the next run of the same query reads nothing. If a run is
interrupted, its pictures are kept beside the cache and the next run of the same query resumes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import AtelierError, MissingPackage
from ..files import atomic_folder, write_json
from ..progress import Progress
from ..temp_paths import PART_SUFFIX
from .captions import with_trigger
from .columns import Columns
from .types import Resolution, TrainingSet

_log = logging.getLogger("atelier")

_SIZE = Resolution()
_INDEX = "captions.json"
_STOPPED = "stopped.json"
"""In the folder of an interrupted run: its captions, and the position in the data set to resume at."""
_ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg"}
"""File ending by Pillow's format name, where the two differ."""


@dataclass(frozen=True, kw_only=True)
class HubQuery:
    """Which rows of a data set to fetch, and how to caption them.

    Raises:
        AtelierError: a value is out of range; the message names the field.
    """

    source: str
    """Id on the hub ("huggan/wikiart") or a local folder: pictures, Parquet files, or what `save_to_disk` wrote."""
    split: str = "train"
    column: str = ""
    """Only rows whose value in this column is `value`. Empty: all rows."""
    value: str = ""
    """A class name ("Impressionism"; case, - and _ do not matter), a class number, or the column's text."""
    limit: int = 100
    """At most this many pictures, the first that match."""
    caption: str = ""
    """Template over columns: "a painting by {artist}", class numbers as names, "{title|artwork}" for what may be
    missing. A column with several texts gives as many captions. Empty: the first of the columns caption, captions,
    text, prompt, description, title."""
    image_column: str = ""
    """Empty: the first column of pictures."""

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise AtelierError("source is empty.", "Give the id of a data set on the hub, or a local folder.")
        if self.limit < 1:
            raise AtelierError(f"limit is {self.limit}.", "Choose 1 or more.")
        if bool(self.column) != bool(self.value):
            raise AtelierError(f"column is {self.column!r} and value is {self.value!r}.", "Give both, or neither.")


@dataclass(frozen=True)
class Fetched:
    """A fetched picture on disk with its captions."""

    path: Path
    captions: tuple[str, ...]


def fetch(query: HubQuery, cache: Path, progress: Progress | None = None) -> tuple[Fetched, ...]:
    """The pictures of a query; read from `cache` if an earlier run fetched them.

    Args:
        cache: Folder of fetched pictures, with one sub-folder for each query.

    Raises:
        MissingPackage: `datasets` is not installed.
        AtelierError: the data set, split or a column does not exist, cannot be reached or read, or nothing matches.
    """
    progress = progress or Progress()
    folder = cache / _key(query)
    if not (folder / _INDEX).is_file():
        with atomic_folder(folder) as part, _resumable(part, folder.with_name(folder.name + PART_SUFFIX)):
            _fetch(query, part, progress)
    captions = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    return tuple(Fetched(folder / name, tuple(texts)) for name, texts in captions.items())


def read_hub(query: HubQuery, cache: Path, *, trigger: str = "", resolution: Resolution = _SIZE,
             repeats: int = 1, flip: bool = False, progress: Progress | None = None) -> TrainingSet:
    """The pictures of a query as a training set. See `fetch`, and `TrainingSet` for what is not explained here.

    Args:
        trigger: Prepended to captions that lack it.
        repeats: Uses of each picture in an epoch.
    """
    from .sample import make_sample

    samples = tuple(make_sample(item.path, tuple(with_trigger(text, trigger) for text in item.captions),
                                repeats=repeats) for item in fetch(query, cache, progress))
    return TrainingSet(samples=samples, resolution=resolution, flip=flip, trigger=trigger)


@contextmanager
def _resumable(part: Path, kept: Path) -> Iterator[None]:
    """Start `part` from an interrupted run's folder `kept`; on failure, rename it to `kept` if it has pictures.

    Renaming is atomic: of two runs at the same time, one resumes and the other starts over.
    """
    with suppress(OSError):
        part.rmdir()
        kept.rename(part)
    part.mkdir(exist_ok=True)
    try:
        yield
    except BaseException:
        if (part / _STOPPED).is_file():
            with suppress(OSError):  # another run may have kept its own
                part.rename(kept)
        raise


def _fetch(query: HubQuery, folder: Path, progress: Progress) -> None:
    captions: dict[str, list[str]] = {}
    position: Any = None
    if (folder / _STOPPED).is_file():
        captions, position = json.loads((folder / _STOPPED).read_text(encoding="utf-8"))
    progress.phase("fetching", query.limit)
    progress.advance(len(captions))
    try:
        for data, ending, texts, after in _matches(query, progress, position):
            name = f"{len(captions) + 1:05d}{ending}"
            (folder / name).write_bytes(data)
            captions[name], position = texts, after
            progress.advance(len(captions))
            if len(captions) == query.limit:
                break
    except BaseException:
        if position:
            write_json(folder / _STOPPED, [captions, position])
        raise
    (folder / _STOPPED).unlink(missing_ok=True)
    write_json(folder / _INDEX, captions)


def _matches(query: HubQuery, progress: Progress, position: Any) -> Iterator[tuple[bytes, str, list[str], Any]]:
    """Yield picture bytes, file ending, captions and the position after it for each row that matches and decodes.

    Args:
        position: Where to resume, as an earlier run received it; None to start at the first row.
    """
    from ..pictures.decode import UnreadablePicture, check_picture

    scanned, found, state = position or (0, 0, None)
    with _readable_errors(query):
        rows, columns = _open(query)
        if state and state["of"] == _stream_version(rows):
            rows.load_state_dict(state["rows"])
            passed = 0
        else:
            passed = scanned  # 0 for a new run
        image = columns.image_column(query.image_column)
        wanted, captions = columns.filter(query.column, query.value), columns.captions(query.caption)
        for number, row in enumerate(rows):
            progress.check()
            if number < passed:
                continue
            scanned += 1
            if not wanted(row):
                continue
            data = _bytes(row[image], query.source)
            try:
                check_picture(Path(f"row {scanned}"), data)
            except UnreadablePicture as error:
                _log.warning("Left out row %d of %s: %s", scanned, query.source, error.why)
                continue
            found += 1
            # `datasets` before 2.20 cannot report its position in a stream.
            state = {"of": _stream_version(rows), "rows": rows.state_dict()} if hasattr(rows, "state_dict") else None
            yield data, _ending(data), captions(row), (scanned, found, state)
    if not found:
        what = f"has {query.column} = {query.value!r}" if query.column else "holds a readable picture"
        raise AtelierError(f"None of the {scanned} rows of {query.source} ({query.split}) {what}.",
                           "Choose another value, column or split.")


def _open(query: HubQuery) -> tuple[Any, Columns]:
    """The rows as a stream with undecoded pictures, and their columns."""
    try:
        import datasets
    except ImportError as error:
        raise MissingPackage("datasets", "Reading a data set") from error
    folder = Path(query.source).expanduser()
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        saved = datasets.load_from_disk(str(folder))
        if isinstance(saved, datasets.DatasetDict):
            if query.split not in saved:
                raise ValueError(f"Bad split: {query.split}. Available splits: {list(saved)}")
            saved = saved[query.split]
        rows = saved.to_iterable_dataset()
    else:
        rows = datasets.load_dataset(str(folder) if folder.is_dir() else query.source, split=query.split,
                                     streaming=True)
    features = rows.features
    if features is None:  # a format without a schema: infer it from the first rows
        features = rows._resolve_features().features or {}
    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    for name in pictures:
        rows = rows.cast_column(name, datasets.Image(decode=False))
    classes = {name: list(feature.names) for name, feature in features.items()
               if isinstance(feature, datasets.ClassLabel)}
    return rows, Columns(query.source, tuple(features), tuple(pictures), classes)


def _stream_version(rows: Any) -> list[Any]:
    """What a saved stream position depends on; if it differs, rows are counted from the start."""
    import datasets

    return [datasets.__version__, rows.n_shards]


def _bytes(picture: Mapping[str, Any] | None, source: str) -> bytes:
    """The stored picture: in the row itself, or in a file of the data set that the row names. Empty where there is
    none, or where the row of a stranger's data set names a file or an address outside it."""
    import fsspec

    if picture is None:
        return b""
    if picture.get("bytes") is not None:
        return picture["bytes"]
    if not _belongs(picture["path"], source):
        _log.warning("A row of %s names the picture %s, which is not part of the data set.", source, picture["path"])
        return b""
    with fsspec.open(picture["path"], "rb") as file:
        return file.read()  # type: ignore[union-attr]


def _belongs(path: str, source: str) -> bool:
    """Whether a row's path, "zip://a.png::/data/pictures.zip" say, leads into the data set's own files."""
    *_, outermost = path.split("::")
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return re.match(rf"hf://datasets/{re.escape(source)}[@/]", outermost) is not None
    return Path(outermost.removeprefix("file://")).resolve().is_relative_to(folder.resolve())


def _ending(data: bytes) -> str:
    from io import BytesIO

    from PIL import Image

    from ..pictures.png import without_texts

    with Image.open(BytesIO(without_texts(data))) as image:
        name = image.format or "PNG"
    return _ENDINGS.get(name, f".{name.lower()}")


def _key(query: HubQuery) -> str:
    """Name of the query's folder: a hash of the query and, for a local folder, of its file list."""
    parts: dict[str, Any] = asdict(query)
    folder = Path(query.source).expanduser()
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        parts["source"] = str(folder.resolve())
        parts["files"] = [(path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
                          for path in files]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@contextmanager
def _readable_errors(query: HubQuery) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # `datasets` raises these for missing, unreachable and damaged data
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise AtelierError(f"The data set {query.source!r} ({query.split}) cannot be read: {why}.",
                           "Check its id or folder, its split, and the network.") from error
