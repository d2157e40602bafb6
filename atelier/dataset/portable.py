"""A training set in a folder that can be taken to another machine: pictures, masks, and a file that describes them.

What is read there is the same set, with the same digest: the same training on both machines is the same run.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import AtelierError
from ..fields import typed
from ..files import write_json
from ..json_files import read_json_object
from ..progress import Progress
from .sample import make_sample
from .types import Resolution, Sample, TrainingSet

SET_FILE = "training_set.json"
"""Name of the file that describes the set."""

_REPAIR = "Export the training set again."
_START = 60
"""Characters of a picture's own name that are kept, so that the path fits in any file system."""


def write_portable(data: TrainingSet, folder: Path, progress: Progress) -> None:
    """Copy the pictures and masks of `data` into `folder`, which is empty, and describe them in `SET_FILE`.

    Pictures that lie in one folder still do: validation holds out none that are the only ones of their folder.
    """
    progress.phase("copying", len(data.samples))
    parents = {parent: f"{number:02d}" for number, parent in
               enumerate(dict.fromkeys(sample.image.parent for sample in data.samples), 1)}
    copies: dict[Path, str] = {}

    def copy(path: Path, kind: str, parent: Path, number: int) -> str:
        if path not in copies:
            copies[path] = f"{kind}/{parents[parent]}/{number:05d} {path.stem[:_START]}{path.suffix}"
            target = folder / copies[path]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        return copies[path]

    samples: list[dict[str, Any]] = []
    for number, sample in enumerate(data.samples, 1):
        progress.check()
        parent = sample.image.parent
        values: dict[str, Any] = {"image": copy(sample.image, "pictures", parent, number),
                                  "captions": list(sample.captions), "repeats": sample.repeats, "prior": sample.prior}
        if sample.mask is not None:
            values["mask"] = copy(sample.mask, "masks", parent, number)
        if sample.resolution is not None:
            values["resolution"] = asdict(sample.resolution)
        samples.append(values)
        progress.advance(number)
    write_json(folder / SET_FILE, {"trigger": data.trigger, "flip": data.flip, "resolution": asdict(data.resolution),
                                   "samples": samples})


def read_portable(path: Path, progress: Progress) -> TrainingSet:
    """The training set that a file of `write_portable` describes; captions may have been changed in it.

    Raises:
        AtelierError: the file or a picture is missing or damaged, or it names one outside of its folder.
    """
    values = read_json_object(path, _REPAIR)
    try:
        listed = values["samples"]
        progress.phase("reading", len(listed))
        samples = []
        for number, one in enumerate(listed, 1):
            progress.check()
            samples.append(_sample(path.parent, one))
            progress.advance(number)
        return TrainingSet(samples=tuple(samples), resolution=_resolution(values["resolution"]),
                           flip=bool(values["flip"]), trigger=str(values["trigger"]))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise AtelierError(f"{path} does not describe a training set ({type(error).__name__}: {error}).", _REPAIR
                           ) from error


def _sample(folder: Path, values: Mapping[str, Any]) -> Sample:
    if not isinstance(values["captions"], list):  # of a text each letter would be a caption
        raise TypeError("'captions' is no list")
    captions = tuple(str(caption) for caption in values["captions"])
    mask, resolution = values.get("mask"), values.get("resolution")
    sample = make_sample(_below(folder, values["image"]), captions, repeats=int(values["repeats"]),
                         mask=None if mask is None else _below(folder, mask), prior=bool(values["prior"]))
    return sample if resolution is None else replace(sample, resolution=_resolution(resolution))


def _resolution(values: Mapping[str, Any]) -> Resolution:
    return Resolution(**typed(Resolution, dict(values)))


def _below(folder: Path, text: str) -> Path:
    relative = PurePosixPath(text)
    if relative.is_absolute() or ".." in relative.parts or ":" in text or "\\" in text:
        raise AtelierError(f"The training set names the file {text!r}, which is not in its folder.", _REPAIR)
    return folder / relative
