"""Infotexts in text files beside pictures, which may hold captions as well: Save Titled's, AUTOMATIC1111's, Forge's."""

from __future__ import annotations

import json

from .infotext import KEY, USUAL, read_pairs

OWN_SETTINGS = ("Seed", "Model", "Title", "CLIP score", "Scored by", "Version")
"""What Save Titled writes, in this order; each where it is known."""


def prompt_in(written: str) -> str | None:
    """The prompt of an infotext as it stands in a text file, with `<lora:…>`; None for any other text.

    People write captions with colons too ("Model: tall, in red"), so this asks for more than `parse_infotext`, which
    reads a field that holds nothing else: a line that begins with "Negative prompt:"; or one that begins with a setting
    and states two, of which steps or seed are numbers; or a last line with nothing but Save Titled's settings.
    """
    lines = written.replace("\r\n", "\n").replace("\r", "\n").strip().split("\n")
    for place, line in enumerate(lines):
        if line.lstrip().startswith("Negative prompt:") or _certainly_settings(line) or (
                place == len(lines) - 1 and _own_settings(line)):
            return "\n".join(lines[:place]).strip()
    return None


def _certainly_settings(line: str) -> bool:
    match = KEY.match(line)
    if match is None or match[1].strip() not in USUAL:
        return False
    values = read_pairs(line)
    numbers = [values[name] for name in ("Steps", "Seed") if name in values]
    return len(values.keys() & USUAL) >= 2 and bool(numbers) and all(str(value).isdecimal() for value in numbers)


def _own_settings(line: str) -> bool:
    values = read_pairs(line)
    names = [name for name in OWN_SETTINGS if name in values]
    plain = ", ".join(f"{name}: {quoted(str(values[name]))}" for name in names)
    certain = "Title" in values or "Seed" in values
    return certain and str(values.get("Seed", 0)).isdecimal() and plain == line.strip()


def quoted(value: str) -> str:
    """A value as it stands in a line of settings: as a JSON string where it would not be read back otherwise."""
    packed = any(c in value for c in ',:"\n\r') or value[:1] in ("[", "{") or value != value.strip()
    return json.dumps(value, ensure_ascii=False) if packed else value
