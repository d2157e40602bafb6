"""Texts as ComfyUI's nodes put them together; None where one cannot be told for sure, or is too long."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

from ...prompt_lines import prompt_lines, styled

LONGEST = 100_000
"""Characters of a text that nodes put together: each could double what the one before it says."""

Texts = Mapping[str, str]
"""Texts by input; an input that is not there is empty."""


def joined(parts: list[str], by: str = "") -> str | None:
    """The parts with `by` between them; None where that is too long."""
    return by.join(parts) if sum(map(len, parts)) + len(by) * len(parts) <= LONGEST else None


def filled(texts: Texts, by: str, *, trim: bool = False) -> str | None:
    """All texts but the settings in order of the names, without empty ones."""
    between = "\n" if texts[by] == "\\n" else texts[by]
    parts = [texts[name].strip() if trim else texts[name] for name in sorted(texts)
             if name not in (by, "clean_whitespace")]
    return joined([part for part in parts if part], between)


def numbered(texts: Texts, by: str) -> str | None:
    """`string_1`, `string_2`, … in the order of their numbers."""
    names = sorted((name for name in texts if name != by), key=lambda name: int(name.rpartition("_")[2]))
    return joined([texts[name] for name in names], texts[by])


def replaced(text: str, find: str, by: str) -> str | None:
    """`text` with each `find` replaced; None where that is too long."""
    count = text.count(find)
    return text.replace(find, by) if len(text) + count * max(len(by) - len(find), 0) <= LONGEST else None


def all_replaced(text: str, *pairs: tuple[str, str]) -> str | None:
    """`text` with each pair replaced in turn; None where that is too long."""
    for find, by in pairs:
        changed = replaced(text, find, by)
        if changed is None:
            return None
        text = changed
    return text


def formatted(texts: Texts) -> str | None:
    """Python's `{name}`, without the rest of that language, which can ask for anything."""
    parts: list[str] = []
    try:
        for plain, name, spec, conversion in Formatter().parse(texts["f_string"]):
            if spec or conversion or (name is not None and f"values.{name}" not in texts):
                return None
            parts += [plain, texts[f"values.{name}"] if name is not None else ""]
    except ValueError:
        return None
    return joined(parts)


def string_function(texts: Texts) -> str | None:
    """String Function of ComfyUI-Custom-Scripts."""
    given = {name: "" if texts[name] == "undefined" else texts[name] for name in ("text_a", "text_b", "text_c")}
    tidy = texts["tidy_tags"] == "yes"
    if texts["action"] == "append":
        out = joined([part for part in given.values() if part], ", " if tidy else "")
    elif given["text_b"].startswith("/") and given["text_b"].endswith("/"):
        return None  # a regular expression of a stranger may never end
    else:
        out = all_replaced(given["text_a"], (given["text_b"], given["text_c"]))
    return all_replaced(out, ("  ", " "), (" ,", ","), (",,", ","), (",,", ",")) if out and tidy else out


def cased(texts: Texts) -> str:
    """Convert Text Case of the host."""
    change = {"UPPERCASE": str.upper, "lowercase": str.lower, "Capitalize": str.capitalize, "Title Case": str.title}
    return change.get(texts["mode"], str)(texts["string"])


def trimmed(texts: Texts) -> str:
    """Trim Text of the host."""
    change = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}
    return change.get(texts["mode"], str)(texts["string"])


def populated(texts: Texts) -> str | None:
    """What a template with wildcards became; the template alone says nothing."""
    return texts["populated_text"] or None


def single_line(texts: Texts) -> str | None:
    """Prompt List's only prompt; None where it has several."""
    lines = prompt_lines(texts["text"])
    return joined([styled(lines[0], texts["before"], texts["after"])]) if len(lines) == 1 else None
