"""Caption many pictures: keep what is written, ask about the rest, and write each answer as it comes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import AtelierError
from ..pictures.decode import UnreadablePicture, read_picture, strict_decoding
from ..progress import Progress
from ..prompts.answer_cache import AnswerCache
from ..prompts.budget import TokenCounter
from ..prompts.client import NOTHING_USED, ChatClient, Usage
from ..prompts.failures import NoAnswer
from ..prompts.structured import ask
from .ask_many import WorkerProgress, ask_many
from .caption_files import check_own_files, write_caption, written_captions
from .question import question
from .request import AT_ONCE, MOST_AT_ONCE, CaptionRequest, Existing
from .wording import caption

_log = logging.getLogger("atelier")


@dataclass(frozen=True)
class Captioned:
    """A picture and its caption."""

    picture: Path
    caption: str
    """Empty if there is none."""
    source: str
    """"file": it had one; "model"; "cache"; "none"."""
    failure: str = ""
    """Why there is none."""


@dataclass(frozen=True)
class CaptionRun:
    """The pictures in their order, and what the language model used."""

    items: tuple[Captioned, ...]
    usage: Usage

    @property
    def failed(self) -> tuple[Captioned, ...]:
        """Pictures without a caption."""
        return tuple(item for item in self.items if item.source == "none")

    def count(self, source: str) -> int:
        """Pictures whose caption has this source."""
        return sum(item.source == source for item in self.items)

    def require_all(self) -> None:
        """Raise unless every picture has a caption.

        Raises:
            AtelierError: the message names the pictures and why each has none.
        """
        if not self.failed:
            return
        listed = "; ".join(f"{item.picture.name} ({item.failure})" for item in self.failed[:20])
        more = f"; and {len(self.failed) - 20} more" if len(self.failed) > 20 else ""
        raise AtelierError(f"{len(self.failed)} of {len(self.items)} pictures got no caption: {listed}{more}. The "
                           "captions of the others are kept.",
                           "Run again with another model or seed, write these captions by hand, or leave the pictures "
                           "out.")


@dataclass(kw_only=True)
class CaptionWriter:
    """Asks one language model about pictures.

    Args:
        client: The model, which must see pictures. It is made to report to this run.
        request: How to describe them.
        cache: Answers of earlier runs; None keeps none.
        counter: Counts tokens as the text encoder does; without it they are estimated.
        files: Whether to write a caption file beside each picture.
        root: The topmost folder in which a table with captions may lie; None is each picture's own.
        existing: What to do with captions that pictures have in a file.
        at_once: Questions at a time.
        progress: Shown progress, asked to stop.

    Raises:
        AtelierError: `at_once` is out of range.
    """

    client: ChatClient
    request: CaptionRequest
    cache: AnswerCache | None = None
    counter: TokenCounter | None = None
    files: bool = True
    root: Path | None = None
    existing: Existing = Existing.KEEP
    at_once: int = AT_ONCE
    progress: Progress

    def __post_init__(self) -> None:
        if not 1 <= self.at_once <= MOST_AT_ONCE:
            raise AtelierError(f"at_once is {self.at_once}.", f"Choose a whole number from 1 to {MOST_AT_ONCE}.")
        self._workers = WorkerProgress()
        self._client = replace(self.client, progress=self._workers)

    def run(self, pictures: Sequence[Path]) -> CaptionRun:
        """Caption `pictures`.

        A caption file is written in the moment of its answer, so that a run that is stopped or killed loses nothing
        and goes on where it was.

        Raises:
            AtelierError: two pictures would share a caption file, a caption file cannot be read or written, or the
                model cannot be asked. Pictures that it gives no usable answer about are in the result's `failed`.
        """
        if self.files:
            check_own_files(pictures)
        written = written_captions(pictures, self.root) if self.existing is Existing.KEEP else [""] * len(pictures)
        results = {picture: Captioned(picture, text, "file") for picture, text in zip(pictures, written, strict=True)
                   if text}
        asked = [picture for picture in dict.fromkeys(pictures) if picture not in results]
        usage = NOTHING_USED
        self.progress.phase("captioning", len(asked))
        with strict_decoding():
            answers = ask_many(self._caption, asked, self.at_once, self._workers, self._check)
            for done, (captioned, used) in enumerate(answers, 1):
                results[captioned.picture] = captioned
                usage += used
                self.progress.advance(done)
        return CaptionRun(tuple(results[picture] for picture in pictures), usage)

    def _check(self) -> None:
        self.progress.check()
        if self._workers.text:
            _log.info("%s …", self._workers.text)
            self._workers.text = ""

    def _caption(self, picture: Path) -> tuple[Captioned, Usage]:
        try:
            asked = question(read_picture(picture), self.request)
            answer = ask(self._client, asked, self.request.seed, self.cache)
        except UnreadablePicture as error:
            return Captioned(picture, "", "none", error.why), NOTHING_USED
        except NoAnswer as error:
            return Captioned(picture, "", "none", error.what.rstrip(".")), NOTHING_USED
        text = caption(answer.value, self.request, self.counter)
        source = "cache" if answer.cached else "model"
        if self.files and not write_caption(picture, text, replace=self.existing is Existing.REPLACE):
            text, source = written_captions([picture])[0], "file"
        return Captioned(picture, text, source), answer.usage
