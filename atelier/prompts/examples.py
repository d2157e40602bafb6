"""Example sets: few-shot prompts that show a language model what works for a kind of image model.

A set is a TOML file and has the file's name. Users write their own in their folder; files are read at each use, and a
user's set replaces a shipped one of the same name:

    description = "…"                # one line for people
    form = "tags"                    # how its prompts are worded: "tags" or "sentences"
    advice = "…"                     # optional: what the writer is told about the model
    negative = "blurry, low quality" # the model's usual negative prompt; the offline writer uses it
    suffix = "sharp focus, 35mm"     # optional: words that the offline writer adds

    [[example]]
    idea = "a fisherman at dawn"
    positive = "…"
    negative = "…"                   # optional: the usual one
    title = "Fisherman at Dawn"
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import AtelierError
from ..toml_files import parse_toml, read_toml_text
from .fields import PromptStyle

SHIPPED = Path(__file__).parents[2] / "prompt_examples"
"""The sets that ship with the pack."""


@dataclass(frozen=True)
class Example:
    """An idea and the prompts written for it."""

    idea: str
    positive: str
    negative: str
    title: str


@dataclass(frozen=True, kw_only=True)
class ExampleSet:
    """Examples for one kind of model."""

    name: str
    description: str
    style: PromptStyle
    advice: str
    negative: str
    suffix: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class ExampleLibrary:
    """The sets in some folders; earlier folders win. Missing folders count as empty."""

    folders: Sequence[Path] = (SHIPPED,)

    def names(self) -> list[str]:
        """Names of all sets, sorted. Only file names are read."""
        return sorted({file.stem for folder in self.folders if folder.is_dir() for file in folder.glob("*.toml")})

    def fingerprint(self, name: str) -> str:
        """Digest of the set's file; empty if there is none."""
        file = self._find(name)
        return hashlib.sha256(file.read_bytes()).hexdigest() if file else ""

    def get(self, name: str) -> ExampleSet:
        """Read a set.

        Raises:
            AtelierError: there is no such set or its file is wrong; the message names file and key.
        """
        file = self._existing(name)
        return self.parse(self.text(name), file)

    def text(self, name: str) -> str:
        """The text of the set's file; raises like `get`."""
        return read_toml_text(self._existing(name), "Choose another set.")

    @staticmethod
    def parse(text: str, file: Path) -> ExampleSet:
        """Parse a set's text; its name is that of `file`. Raises like `get`."""
        return _read(parse_toml(text, file), file)

    def _existing(self, name: str) -> Path:
        file = self._find(name)
        if file is None:
            known = ", ".join(self.names()) or "none"
            raise AtelierError(f"There is no example set {name!r}.", f"Choose one of these: {known}.")
        return file

    def _find(self, name: str) -> Path | None:
        if not name or Path(name).name != name:  # Reject paths that leave the folder.
            return None
        files = (folder / f"{name}.toml" for folder in self.folders)
        return next((file for file in files if file.is_file()), None)


def _read(table: Mapping[str, Any], file: Path) -> ExampleSet:
    usual = _text(table, "negative", file, required=False)
    form = _text(table, "form", file)
    if form not in (PromptStyle.TAGS.value, PromptStyle.SENTENCES.value):
        raise AtelierError(f"{file}: form is {form!r}.", 'Write form = "tags" or form = "sentences".')
    entries = table.get("example", [])
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise AtelierError(f"{file} has no examples.", "Write at least one [[example]] with idea, positive and title.")
    examples = tuple(Example(_text(entry, "idea", file), _text(entry, "positive", file),
                             _text(entry, "negative", file, required=False) or usual, _text(entry, "title", file))
                     for entry in entries)
    return ExampleSet(name=file.stem, description=_text(table, "description", file, required=False),
                      style=PromptStyle(form), advice=_text(table, "advice", file, required=False), negative=usual,
                      suffix=_text(table, "suffix", file, required=False), examples=examples)


def _text(table: Mapping[str, Any], key: str, file: Path, required: bool = True) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or (required and not value.strip()):
        raise AtelierError(f"{file}: {key} is missing or not a text.", f'Write {key} = "…".')
    return " ".join(value.split())
