"""Captions for a training set, with what a person changed in the review."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..dataset.captions import with_trigger
from ..dataset.types import Sample, TrainingSet
from ..errors import AtelierError
from .caption_files import write_caption, written_captions
from .edits import Edits
from .run import CaptionRun, CaptionWriter


@dataclass(frozen=True)
class Reviewed:
    """A picture as the review shows it."""

    sample: Sample
    caption: str
    """Empty if the model gave none."""
    edited: bool
    left_out: bool
    failure: str = ""


@dataclass(frozen=True)
class CaptionedSet:
    """A training set with captions, and all of its pictures for the review."""

    data: TrainingSet
    reviewed: tuple[Reviewed, ...]
    run: CaptionRun


def caption_set(data: TrainingSet, writer: CaptionWriter, edits: Edits, skip_failed: bool = False) -> CaptionedSet:
    """`data` with the captions that `writer` gives, and the edits.

    Prior pictures keep their captions. A picture that has a caption file keeps the captions that `data` has for it. Of
    pictures that a person captioned or left out the model is not asked; with `writer.files` their captions are written.

    Args:
        data: Pictures; their captions count only where they come from a file.
        writer: Asks the model.
        edits: From the review.
        skip_failed: Leave out pictures that the model gives no usable answer about; otherwise they are an error.

    Raises:
        AtelierError: as `CaptionWriter.run`; pictures without caption; no picture is left.
    """
    shown = [sample for sample in data.samples if not sample.prior]
    asked = [sample.image for sample in shown if sample.digest not in edits]
    run = writer.run(asked)
    if not skip_failed:
        run.require_all()
    by_picture = {item.picture: item for item in run.items}
    trigger = writer.request.trigger or data.trigger

    def captioned(sample: Sample) -> tuple[Sample | None, Reviewed]:
        if sample.digest in edits:
            text = edits[sample.digest]
            if text is None:
                return None, Reviewed(sample, sample.captions[0], False, True)
            _keep_edit(sample, text, writer.files)
            return replace(sample, captions=(text,)), Reviewed(sample, text, True, False)
        item = by_picture[sample.image]
        if item.source == "none":
            return None, Reviewed(sample, "", False, True, item.failure)
        captions = (sample.captions if item.source == "file"
                    else (with_trigger(item.caption, trigger),))
        return replace(sample, captions=captions), Reviewed(sample, captions[0], False, False)

    samples: list[Sample] = []
    reviewed: list[Reviewed] = []
    for sample in data.samples:
        if sample.prior:
            samples.append(sample)
            continue
        kept, shown_as = captioned(sample)
        samples += [kept] if kept is not None else []
        reviewed.append(shown_as)
    if not any(not sample.prior for sample in samples):
        raise AtelierError(f"All {len(reviewed)} pictures are left out.", "Put some back in the list of captions.")
    return CaptionedSet(replace(data, samples=tuple(samples), trigger=trigger, notes=()), tuple(reviewed), run)


def _keep_edit(sample: Sample, text: str, files: bool) -> None:
    if files and written_captions([sample.image])[0] != text:
        write_caption(sample.image, text, replace=True)
