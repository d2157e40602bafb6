"""A training run described in TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..dataset.folder import FolderOptions, read_folder
from ..dataset.portable import read_portable
from ..dataset.types import Resolution, TrainingSet
from ..errors import AtelierError
from ..fields import typed
from ..files import file_name
from ..limits import BeyondLimits, check_values
from ..models.handle import DiffusersModel
from ..models.open import open_model
from ..prior.options import PriorOptions
from ..progress import Progress
from ..toml_files import BACKSLASHES, TOML, parse_toml, read_toml_text
from ..train.devices import RunPaths, pick_device, pick_dtype
from ..train.processes import ALONE, Processes
from ..train.request.outputs import NO_SCORE
from ..train.request.presets import build_request
from ..train.request.request import PARTS, TrainRequest, names_of, only

KEYS = ("name", "model", "model_hash", "prediction_type", "preset", "epochs", "steps", "seed")
"""What stands before the first table."""
TABLES = ("data", "prior", "lora", "options", "place")
PLACES = ("loras", "runs", "cache")
"""Keys of [place]; each is the name of its folder where it is left out."""


@dataclass(frozen=True, kw_only=True)
class TrainFile:
    """What a configuration file asks for, paths resolved."""

    name: str
    model: Path
    prediction_type: str
    model_hash: str
    """Fingerprint that the model must have; empty: any."""
    exported: bool
    """Whether the pictures are an exported training set (see `atelier.dataset.portable`)."""
    folder: Path
    """Of the pictures; the file of an exported training set."""
    data: FolderOptions
    prior: PriorOptions | None
    """Prior pictures that the model draws; None: it draws none."""
    request: TrainRequest
    paths: RunPaths

    def read_data(self, progress: Progress) -> TrainingSet:
        """The pictures.

        Raises:
            AtelierError: as `read_folder` and `read_portable`.
        """
        if self.exported:
            return read_portable(self.folder, progress)
        own = self.paths
        return read_folder(self.folder, self.data, progress, leave_out=(own.runs, own.cache, own.loras))

    def open_model(self, progress: Progress) -> DiffusersModel:
        """The model.

        Raises:
            AtelierError: it cannot be opened, or is another one than the file names.
        """
        model = open_model(self.model, prediction_type=self.prediction_type, progress=progress)
        if self.model_hash not in ("", model.fingerprint):
            raise AtelierError(f"{self.model} is another model than the one that this training was exported with: its "
                               f"weights have the hash {model.fingerprint}, not {self.model_hash}.",
                               "Copy that model here, or take model_hash out of the file to train on this one.")
        return model


    def add_prior(self, data: TrainingSet, model: DiffusersModel, progress: Progress,
                  processes: Processes = ALONE) -> TrainingSet:
        """`data` with the prior pictures that `model` draws; they are kept in the cache.

        Raises:
            AtelierError: as `add_prior_pictures`.
        """
        if self.prior is None:
            return data
        from ..prior.draw import DiffusersDrawer, add_prior_pictures

        device = pick_device(self.paths.device)
        drawer = DiffusersDrawer(model, device, pick_dtype(self.request.device.precision, device))
        return add_prior_pictures(data, self.prior, drawer, self.paths.cache / "prior", progress, processes)


def read_train_file(path: Path, *, device: str = "auto") -> TrainFile:
    """Read a configuration file. Relative paths in it count from its own folder; `~` is the user's.

    Raises:
        AtelierError: it cannot be read, misses something, or holds an unknown name or a value of another type or out
            of range.
    """
    values = parse_toml(read_toml_text(path, "Give an existing TOML file."), path)
    try:
        check_values(values, TOML)
    except BeyondLimits as error:  # a null character, which no path or prompt can hold
        raise AtelierError(f"{path} cannot be used: {error}.", "Take it out.") from error
    _only(values, {*KEYS, *TABLES}, path.name)
    base = path.resolve().parent
    data = _table(values, "data", path)
    place = _table(values, "place", path)
    _only(place, {*PLACES}, "[place]")
    folders = [_path(place, name, "[place]", base) if name in place else base / name
               for name in PLACES]
    exported = _exported(data)
    prediction = _text(values, "prediction_type", path.name) if "prediction_type" in values else "auto"
    return TrainFile(
        name=file_name(_text(values, "name", path.name)), model=_path(values, "model", path.name, base),
        prediction_type=prediction, model_hash=_text(values, "model_hash", path.name) if "model_hash" in values else "",
        exported=exported, folder=_path(data, "set" if exported else "folder", "[data]", base),
        data=FolderOptions() if exported else _folder_options(data, base), prior=_prior(values, path),
        request=_request(values, base), paths=RunPaths(folders[0], folders[1], folders[2], device))


def _request(values: Mapping[str, Any], base: Path) -> TrainRequest:
    """The request of a file: its preset, then its tables, then its length and seed."""
    lora = dict(only(values.get("lora", {}), names_of("lora"), "[lora]"))
    if lora.get("init_lora"):
        lora["init_lora"] = str(_path(lora, "init_lora", "[lora]", base))
    top = {key: values[key] for key in ("epochs", "steps", "seed") if key in values}
    preset = values.get("preset", None if {"epochs", "steps"} & set(top) else "subject")
    others = names_of(*(part for part in PARTS if part != "lora"))
    options = dict(only(values.get("options", {}), others, "[options]"))
    if options.get("score_model", NO_SCORE) != NO_SCORE:
        options["score_model"] = str(_path(options, "score_model", "[options]", base))
    return build_request(preset, lora, options, top)


def _exported(data: Mapping[str, Any]) -> bool:
    if "set" in data:
        _only(data, {"set"}, "[data] with set")
    return "set" in data


def _folder_options(data: Mapping[str, Any], base: Path) -> FolderOptions:
    values = {key: value for key, value in data.items() if key != "folder"}
    _only(values, {field.name for field in fields(FolderOptions)}, "[data]")
    resolution: Any = values.pop("resolution", {})
    if isinstance(resolution, int):
        resolution = {"size": resolution}
    if not isinstance(resolution, dict):
        raise AtelierError(f"resolution in [data] is {resolution!r}.",
                           'Write a whole number such as 512, or a table such as { size = 512, crop = "bucket" }.')
    _only(resolution, {field.name for field in fields(Resolution)}, "[data] resolution")
    for name in ("masks", "prior"):
        if name in values:
            values[name] = _path(values, name, "[data]", base)
    return FolderOptions(resolution=Resolution(**typed(Resolution, resolution)), **typed(FolderOptions, values))


def _prior(values: Mapping[str, Any], path: Path) -> PriorOptions | None:
    if "prior" not in values:
        return None
    table = _table(values, "prior", path)
    _only(table, {field.name for field in fields(PriorOptions)}, "[prior]")
    return PriorOptions(**typed(PriorOptions, table))


def _table(values: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = values.get(name, {})
    if not isinstance(table, dict):
        raise AtelierError(f"{name} in {path.name} is {table!r}.", f"Write it as a table: [{name}].")
    return table


def _text(values: Mapping[str, Any], name: str, where: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value:
        if value is None:
            raise AtelierError(f"{where} lacks {name}.", f'Add a line such as {name} = "…".')
        raise AtelierError(f"{name} in {where} is {value!r}.", f'Write a text in quotes: {name} = "…".')
    return value


def _path(values: Mapping[str, Any], name: str, where: str, base: Path) -> Path:
    text = _text(values, name, where)
    if any(ord(letter) < 32 for letter in text):
        raise AtelierError(f"{name} in {where} is {text!r}, which is no path.", BACKSLASHES)
    try:
        return base / Path(text).expanduser()
    except RuntimeError as error:
        raise AtelierError(f"{name} in {where} is {text!r}, and this system knows no such user.",
                           "Write the whole path.") from error


def _only(values: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        raise AtelierError(f"{where} holds unknown names: {', '.join(unknown)}.",
                           f"Known names: {', '.join(sorted(known))}.")
