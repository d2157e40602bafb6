"""Captions in text files beside the pictures."""

from __future__ import annotations

import codecs
import unicodedata
from pathlib import Path

from ..errors import AtelierError
from ..pictures.metadata.infotext import take_loras
from ..pictures.metadata.infotext_file import prompt_in

SIDECAR_ENDINGS = (".txt", ".caption")
"""In order of precedence."""


class Sidecars:
    """Finds caption files; lists each folder once.

    Endings match in any case. Names match in composed and decomposed form: archives packed on macOS hold decomposed
    letters.
    """

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, Path]] = {}

    def find(self, picture: Path) -> list[Path]:
        """The caption files of `picture` in the order of `SIDECAR_ENDINGS`; the first non-empty one counts."""
        folder = picture.parent
        if folder not in self._listed:
            self._listed[folder] = {_key(path.stem) + path.suffix.lower(): path for path in sorted(folder.iterdir())
                                    if path.suffix.lower() in SIDECAR_ENDINGS and path.is_file()}
        names, stem = self._listed[folder], _key(picture.stem)
        return [names[stem + ending] for ending in SIDECAR_ENDINGS if stem + ending in names]


def _key(stem: str) -> str:
    return unicodedata.normalize("NFC", stem)


def read_sidecar(path: Path, by_lines: bool) -> tuple[str, ...]:
    """The captions in `path`: one, its lines joined by spaces, or with `by_lines` one of each line.

    UTF-8 with or without a byte order mark; UTF-16 with one. Blank lines are ignored, so an empty file gives no
    caption. Of an infotext (Save Titled, AUTOMATIC1111, Forge) only the prompt counts; `<lora:…>` is left out of it and
    of captions alike, as it is no word to learn.

    Raises:
        AtelierError: the file is in another encoding.
    """
    data = path.read_bytes()
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise AtelierError(f"{path} is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from error
    if "\0" in text:
        raise AtelierError(f"{path} holds null characters; it may be UTF-16 without a byte order mark.",
                           "Save it as UTF-8.")
    prompt = prompt_in(text)
    text, _ = take_loras(text if prompt is None else prompt)
    lines = tuple(line for line in (" ".join(raw.split()) for raw in text.splitlines()) if line)
    if by_lines or not lines:
        return lines
    return (" ".join(lines),)
