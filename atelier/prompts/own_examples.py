"""Add a user's own prompts to an example set.

Examples are appended to the file, so its comments stay.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

from ..errors import AtelierError
from ..files import file_name, write_text
from .examples import Example, ExampleLibrary, ExampleSet
from .fields import PromptStyle

IDEA_WORDS = 8
"""Maximum words of an idea that is taken from the prompt."""


def example_of(positive: str, negative: str = "", idea: str = "", title: str = "") -> Example:
    """An example from a prompt whose idea may be unknown.

    Args:
        idea: If empty, the prompt up to its first comma or sentence, without weights, at most eight words.
        title: If empty, the idea with a capital first letter.

    Raises:
        AtelierError: the prompt is empty.
    """
    positive, negative, idea, title = (" ".join(text.split()) for text in (positive, negative, idea, title))
    if not positive:
        raise AtelierError("positive is empty: an example needs a prompt.", "Connect or write one.")
    bare = re.sub(r"[()\[\]{}]", "", re.sub(r":[\d.]+(?=[)\]])", "", positive))
    first = re.split(r",|\.(?=\s|$)", bare)[0].strip() or positive
    idea = idea or " ".join(first.split()[:IDEA_WORDS])
    return Example(idea, positive, negative, title or idea[:1].upper() + idea[1:])


def add_example(library: ExampleLibrary, name: str, example: Example, style: PromptStyle) -> ExampleSet:
    """Append an example to the set `name` in the library's first folder; the file is replaced atomically.

    Names are case-insensitive, as on many file systems. A set that exists only in another folder, such as a shipped
    one, is copied first; the copy then takes precedence. A new set gets the example's style, and its negative prompt as
    the usual one. An example whose positive prompt is already in the set is not added again.

    Returns:
        The updated set.

    Raises:
        AtelierError: the name is no file name, or the set's file is invalid, has another style or cannot be written.
    """
    if Path(file_name(name)).name != name:
        raise AtelierError(f"{name!r} cannot be the name of an example set.", "Leave out folders and spaces around it.")
    if style not in (PromptStyle.TAGS, PromptStyle.SENTENCES):
        raise AtelierError(f"form is {style.value}.", "Example sets hold tags or sentences.")
    name = next((known for known in library.names() if _folded(known) == _folded(name)), name)
    file = library.folders[0] / f"{name}.toml"
    if name in library.names():
        old = library.get(name)
        if old.style is not style:
            raise AtelierError(f"The example set {name!r} holds {old.style.value}, this prompt is to be {style.value}.",
                               f"Choose the form {old.style.value}, or another set.")
        if any(known.positive == example.positive for known in old.examples):
            return old
        text = library.text(name).rstrip("\n") + "\n"
    else:
        text = _table("", description="Own examples", form=style.value, negative=example.negative)
    # An empty negative prompt in the file stands for the usual one.
    entry = _table("[[example]]\n", idea=example.idea, positive=example.positive, negative=example.negative,
                   title=example.title)
    text = f"{text}\n{entry}"
    try:
        added = library.parse(text, file)
    except AtelierError as error:  # nothing is written yet; the old text parsed above, so the new entry is at fault
        raise AtelierError(f"{file} lists its examples in another way.",
                           "Write them as [[example]] to add to them.") from error
    write_text(file, text)
    return added


def _table(head: str, **values: str) -> str:
    return head + "".join(f"{key} = {_quoted(value)}\n" for key, value in values.items())


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _quoted(text: str) -> str:
    """A TOML basic string. JSON's escapes are TOML's, but for what JSON leaves bare: DEL and halves of a character."""
    escaped = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
    return "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= c <= "\udfff" else c for c in escaped)
