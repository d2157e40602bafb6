"""Read a training set from a folder of pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from ..errors import AtelierError
from ..progress import Progress
from .captions import check_template, fill_template, with_trigger
from .metadata_table import MetadataTables
from .parallel import in_order
from .scan import PictureFile, find_pictures
from .sidecar import Sidecars, read_sidecar
from .stand_in import has_caption_files, stand_in_captions
from .types import Resolution, Sample, TrainingSet

_log = logging.getLogger("atelier")

_TEXT = "caption on the node, text in a configuration file"
_PRIOR_TEXT = "prior_caption on the node, prior_text in a configuration file"
"""Names of the fallback captions on the node and in configuration files, for error messages."""

MAX_REPEATS = 10_000
"""Uses of a picture in an epoch at most; more is a slip of the keyboard, and the order of an epoch lists each use."""


class CaptionSource(str, Enum):
    """Where captions come from."""

    SIDECAR = "sidecar"
    """A text file beside each picture, else its row of a table (see `atelier.dataset.metadata_table`). In a folder
    without any, the trigger or the folder's name is every caption, and a note says so."""
    TEMPLATE = "template"
    """One template, filled for each picture."""
    FIXED = "fixed"
    """One text for all."""
    METADATA = "metadata"
    """The prompt in each picture's metadata (see `atelier.pictures.metadata`), without `<lora:…>`. A text file beside a
    picture, or its row of a table, takes precedence, so that a caption can be corrected by hand."""


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """How to read a folder.

    Raises:
        AtelierError: a value is out of range, or a caption source lacks its text; the message names the field.
    """

    captions: CaptionSource = CaptionSource.SIDECAR
    template: str = "{stem}"
    """For "template": text with {stem}, {trigger} and {folder} (the folder's name without kohya's `N_`)."""
    text: str = ""
    """For "fixed": the caption. For "sidecar" and "metadata": the caption of pictures that have none of their own."""
    caption_lines: bool = False
    """Whether each line of a sidecar is a caption of its own, used in turn; otherwise its lines are joined into one. A
    prompt from metadata is always one caption."""
    trigger: str = ""
    """Prepended to captions that lack it (except those of prior pictures)."""
    resolution: Resolution = field(default_factory=Resolution)
    repeats: int = 1
    """Uses of each picture in an epoch; multiplies the N of `N_name` folders."""
    flip: bool = False
    recursive: bool = True
    unreadable: str = "error"
    """Damaged pictures: "error" names them all and stops, "skip" leaves them out."""
    masks: Path | None = None
    """A folder of loss masks (see `atelier.dataset.scan`); `<name>-mask.png` beside a picture works without it."""
    prior: Path | None = None
    """A folder of prior-preservation pictures, captioned by their sidecars, else by `prior_text`."""
    prior_text: str = ""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "captions", CaptionSource(self.captions))
        except ValueError as error:
            raise AtelierError(f"captions is {self.captions!r}.",
                               f"Choose {', '.join(source.value for source in CaptionSource)}.") from error
        if self.unreadable not in ("error", "skip"):
            raise AtelierError(f"unreadable is {self.unreadable!r}.", "Choose error or skip.")
        if not 1 <= self.repeats <= MAX_REPEATS:
            raise AtelierError(f"repeats is {self.repeats}.", f"Choose a whole number from 1 to {MAX_REPEATS}.")
        if self.captions is CaptionSource.TEMPLATE:
            check_template(self.template)
        if self.captions is CaptionSource.FIXED and not (self.text or self.trigger):
            raise AtelierError("captions is \"fixed\", but there is no caption text and no trigger.",
                               f"Give a text ({_TEXT}), or a trigger word.")


def read_folder(folder: Path, options: FolderOptions = FolderOptions(), progress: Progress | None = None,
                leave_out: Sequence[Path] = ()) -> TrainingSet:
    """Read the pictures of `folder` with their captions, masks and repeats.

    Every file is read once in full, to compute its digest and to check that it decodes.

    Args:
        folder: The folder.
        options: How to read it.
        progress: Shown progress, asked to stop.
        leave_out: Folders below it that hold no training pictures, such as those of runs.

    Raises:
        AtelierError: no picture, missing captions, or unreadable files; each message names all files concerned.
    """
    progress = progress or Progress()
    found = _pictures(folder, options.recursive, options.masks,
                      [*leave_out, *([options.prior] if options.prior else [])])
    captions, notes = _captions(folder, found, options, progress)
    entries = [_Entry(picture, caption, False) for picture, caption in zip(found, captions, strict=True)]
    if options.masks and not any(picture.mask for picture in found):
        raise AtelierError(f"The masks folder {options.masks} holds no mask for any picture of {folder}.",
                           "Name each mask like its picture, in the same sub-folder.")
    if options.prior is not None:
        prior = _pictures(options.prior, options.recursive, None, leave_out)
        texts = _own_captions(options.prior, prior, options.caption_lines, options.prior_text, _PRIOR_TEXT, progress)
        entries += [_Entry(picture, caption, True) for picture, caption in zip(prior, texts, strict=True)]
    return replace(_checked(entries, options, progress), notes=notes)


@dataclass(frozen=True)
class _Entry:
    picture: PictureFile
    captions: tuple[str, ...]
    prior: bool


def _pictures(folder: Path, recursive: bool, masks: Path | None, leave_out: Sequence[Path]) -> list[PictureFile]:
    for path in (folder, masks):
        if path is not None and not path.is_dir():
            raise AtelierError(f"{path} is not a folder.", "Choose an existing folder of pictures.")
    found = [picture for picture in find_pictures(folder, recursive, masks, leave_out) if picture.repeats]
    if not found:
        below = "" if recursive else " itself (folders in it are not searched)"
        raise AtelierError(f"{folder} holds no pictures{below}.",
                           "Choose another folder" + (", or switch recursive on." if not recursive else "."))
    return found


def _captions(folder: Path, found: Sequence[PictureFile], options: FolderOptions,
              progress: Progress) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """The captions of each picture, and notes on them."""
    notes: tuple[str, ...] = ()
    if options.captions is CaptionSource.SIDECAR and not options.text and not has_caption_files(folder, found):
        captions, note = stand_in_captions(folder, found, options.trigger)
        notes = (note,)
    elif options.captions in (CaptionSource.SIDECAR, CaptionSource.METADATA):
        captions = _own_captions(folder, found, options.caption_lines, options.text, _TEXT, progress,
                                 prompts=options.captions is CaptionSource.METADATA)
    elif options.captions is CaptionSource.FIXED:
        captions = [(options.text,)] * len(found)
    else:
        captions = [(fill_template(options.template, {"stem": picture.path.stem, "trigger": options.trigger,
                                                      "folder": picture.folder}),) for picture in found]
    return [tuple(with_trigger(text, options.trigger) for text in texts) for texts in captions], notes


def _own_captions(folder: Path, found: Sequence[PictureFile], by_lines: bool, fallback: str, option: str,
                  progress: Progress, prompts: bool = False) -> list[tuple[str, ...]]:
    """Captions from sidecars, tables, (with `prompts`) the pictures' metadata, and the fallback, in this order."""
    sidecars, tables = Sidecars(), MetadataTables(folder)
    captions: list[tuple[str, ...]] = []
    missing: list[Path] = []
    faults: list[str] = []
    for picture in found:
        progress.check()
        try:
            written = (read_sidecar(path, by_lines) for path in sidecars.find(picture.path))
            texts = next((lines for lines in written if lines), ())
        except AtelierError as error:
            faults.append(error.what)
            continue
        texts = texts or tables.find(picture.path)
        if not texts and prompts:
            texts = _prompt_in(picture.path)
        if not texts and not fallback:
            missing.append(picture.path)
        captions.append(texts or (fallback,))
    if faults:
        raise AtelierError(" ".join(faults), "Save these caption files as UTF-8.")
    if missing:
        nor = ", and no prompt in their metadata that is certain; Read Prompt says why" if prompts else ""
        raise AtelierError(f"{len(missing)} of {len(found)} pictures have no caption (no .txt or .caption file beside "
                           f"them, or an empty one, no row in a metadata.jsonl or metadata.csv{nor}): "
                           f"{_names(missing)}.",
                           f"Write these files, or give what such pictures get: {option}.")
    return captions


def _prompt_in(picture: Path) -> tuple[str, ...]:
    """The prompt in a picture's metadata as one line; empty where there is none."""
    from ..pictures.decode import UnreadablePicture
    from ..pictures.metadata.read import read_prompt

    try:
        prompt = " ".join(read_prompt(picture).positive.split())
    except UnreadablePicture:
        return ("",)  # a placeholder: damaged pictures are reported or skipped when all are decoded
    except AtelierError:
        return ()
    return (prompt,) if prompt else ()


def _checked(entries: Sequence[_Entry], options: FolderOptions, progress: Progress) -> TrainingSet:
    # Pillow is loaded only when a folder is read, not when the nodes are registered.
    from ..pictures.decode import UnreadablePicture, strict_decoding
    from .sample import make_sample

    def sample_or_fault(entry: _Entry) -> Sample | UnreadablePicture:
        picture = entry.picture
        try:
            return make_sample(picture.path, entry.captions, repeats=options.repeats * picture.repeats,
                               mask=picture.mask, prior=entry.prior)
        except UnreadablePicture as error:
            return error

    samples: list[Sample] = []
    faults: list[UnreadablePicture] = []
    progress.phase("reading", len(entries))
    with strict_decoding(), closing(in_order(sample_or_fault, entries, ahead=32)) as results:
        for done, result in enumerate(results, 1):
            progress.check()
            if isinstance(result, Sample):
                samples.append(result)
            else:
                faults.append(result)
            progress.advance(done)
    if faults and (options.unreadable == "error" or not any(not sample.prior for sample in samples)):
        listed = "; ".join(f"{fault.path.name} ({fault.why})" for fault in faults)
        raise AtelierError(f"{len(faults)} of {len(entries)} pictures cannot be used: {listed}.",
                           "Replace or remove them, or set unreadable to skip.")
    for fault in faults:
        _log.warning("Left out %s: %s", fault.path, fault.why)
    return TrainingSet(samples=tuple(samples), resolution=options.resolution, flip=options.flip,
                       trigger=options.trigger, skipped=tuple(fault.path for fault in faults))


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)
