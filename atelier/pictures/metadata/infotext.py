"""The text that AUTOMATIC1111's web UI made common: prompt, negative prompt, and one line of `Name: value` pairs.

Forge, CivitAI and many others write it too. Values with commas are JSON strings, lists or objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from .samplers import from_labels
from .settings import Lora, PictureMetadata, dicts, number, stem, text, whole

KEY = re.compile(r"\s*(\w[^,:\"\n]{0,60}?)\s*:\s*")
"""A setting's name, with all up to its value."""
_LORA = re.compile(r"<(?:lora|lyco):([^:<>]+)(?::([^<>]*))?>")
USUAL = {"Steps", "Sampler", "CFG scale", "Seed", "Size", "Model", "Model hash"}
"""Names of settings of which nearly every infotext has two."""
_LONGEST_VALUE = 2**16
"""Characters of a value in JSON; a longer one is taken as plain text."""
_MOST_PACKED = 500
"""Values in JSON that are tried; each costs as much as the longest."""
_NEGATIVE = re.compile(r"\n[ \t]*Negative prompt:")
OWN_PROGRAM = "Atelier"
"""How the version begins that Save Titled writes."""


def parse_infotext(written: str) -> PictureMetadata:
    """Read the text. Fields that are missing or damaged stay empty; see `PictureMetadata.empty`."""
    lines = written.replace("\r\n", "\n").replace("\r", "\n").strip().split("\n")
    at = _settings_line(lines)
    settings = read_pairs("\n".join(lines[at:at + 1]))
    positive, negative, *_ = [*_NEGATIVE.split("\n".join(["", *lines[:at]]), maxsplit=1), ""]
    positive, loras = take_loras(positive)
    sampler, scheduler = from_labels(text(settings.get("Sampler")), text(settings.get("Schedule type")))
    size = re.match(r"\s*(\d{1,6})\s*x\s*(\d{1,6})", str(settings.get("Size", "")))
    resources = settings.get("Civitai resources")
    model = text(settings.get("Model")) or _resource_model(resources)
    return PictureMetadata(
        program=_program(settings), positive=positive.strip(), negative=negative.strip(), sampler=sampler,
        scheduler=scheduler, steps=whole(settings.get("Steps"), 100_000), cfg=number(settings.get("CFG scale")),
        seed=whole(settings.get("Seed")), width=int(size[1]) if size else None, height=int(size[2]) if size else None,
        model=stem(model), model_hash=text(settings.get("Model hash")),
        loras=loras or _resource_loras(resources) or _weighted_loras(settings.get("Lora weights")))


def setting(written: str, name: str) -> str:
    """One setting of an infotext as it is written; "" where it is not there."""
    lines = written.strip().split("\n")
    at = _settings_line(lines)
    return text(read_pairs("\n".join(lines[at:at + 1])).get(name))


def parse_summary(values: Mapping[str, Any]) -> PictureMetadata:
    """Read the JSON summary that CivitAI's generator puts beside its graph."""
    positive, loras = take_loras(text(values.get("prompt")))
    sampler, scheduler = from_labels(text(values.get("sampler")), text(values.get("scheduler")))
    return PictureMetadata(
        program="CivitAI", positive=positive, negative=text(values.get("negativePrompt")), sampler=sampler,
        scheduler=scheduler, steps=whole(values.get("steps"), 100_000), cfg=number(values.get("cfgScale")),
        seed=whole(values.get("seed")), width=whole(values.get("width"), 10**6),
        height=whole(values.get("height"), 10**6), loras=loras)


def take_loras(prompt: str) -> tuple[str, tuple[Lora, ...]]:
    """The prompt without its `<lora:name:strength>`, nor the commas that would be left of them, and these."""
    loras = tuple(Lora(match[1].strip(), _unet_strength(match[2] or "")) for match in _LORA.finditer(prompt))
    if not loras:
        return prompt.strip(), ()
    lines = (_without(line) for line in _LORA.sub("\0", prompt.replace("\0", "")).split("\n"))
    return "\n".join(line for line in lines if line is not None).strip().rstrip(", \t\n"), loras


def _without(line: str) -> str | None:
    """A line without its `\0`; a part between commas that is nothing else goes, as does a whole line: None."""
    if "\0" not in line:
        return line
    kept: list[str] = []
    for part in line.split(","):
        plain = re.sub(r"[ \t]{2,}", " ", part.replace("\0", " ")).rstrip(" \t") if "\0" in part else part
        if "\0" not in part or plain.strip():
            kept.append(plain)
    if not any(part.strip() for part in kept):
        return None
    # Where the last part went, its comma stays before the next line.
    last = line.rpartition(",")[2]
    return ",".join([*kept, ""] if "\0" in last and not last.replace("\0", "").strip() else kept).strip(" \t")


def read_pairs(line: str) -> dict[str, Any]:
    """`Name: value, Name: value, …`; the first of equal names counts, and what is no pair is passed by."""
    values: dict[str, Any] = {}
    place = tried = 0
    while place >= 0:
        if match := KEY.match(line, place):
            packed = line[match.end():match.end() + 1] in ('"', "[", "{") and tried < _MOST_PACKED
            tried += packed
            value, place = _value(line, match.end(), packed)
            values.setdefault(match[1].strip(), value)
        place = line.find(",", place) + 1 or -1
    return values


def _value(line: str, place: int, packed: bool) -> tuple[Any, int]:
    """The value that begins at `place`, and where it ends; `packed` says that it looks like JSON."""
    if packed:
        try:
            # A part of the line, or each error would count the line ends of all that stands before it.
            value, length = json.JSONDecoder().raw_decode(line[place:place + _LONGEST_VALUE])
            return value, place + length
        except (ValueError, RecursionError):
            pass  # damaged: taken as plain text
    comma = line.find(",", place)
    end = len(line) if comma < 0 else comma
    return line[place:end].strip(), end


def _settings_line(lines: list[str]) -> int:
    """Place of the settings, or the number of lines: the last line that begins with one, else that holds some."""
    holding = -1
    for at in range(len(lines) - 1, -1, -1):
        match = KEY.match(lines[at])
        if match and _holds_settings(lines[at]):
            if match[1].strip() in USUAL or _own(read_pairs(lines[at])):
                return at
            holding = max(holding, at)
    return holding if holding >= 0 else len(lines)


def _holds_settings(line: str) -> bool:
    known = read_pairs(line)
    return "Steps" in known or len(known.keys() & USUAL) >= 2 or _own(known)


def _own(settings: Mapping[str, Any]) -> bool:
    return text(settings.get("Version")).startswith(f"{OWN_PROGRAM} ")


def _program(settings: dict[str, Any]) -> str:
    if _own(settings):
        return OWN_PROGRAM
    if "Civitai resources" in settings or "Civitai metadata" in settings:
        return "CivitAI"
    version = text(settings.get("Version"))
    if version.startswith("Fooocus"):
        return "Fooocus"
    # Forge's versions begin with f or are called neo.
    forge = bool(re.match(r"f\d|neo", version)) or "Distilled CFG Scale" in settings
    return "Forge" if forge else "A1111"


def _resource_model(resources: Any) -> str:
    return next((text(each.get("modelName")) for each in dicts(resources) if each.get("type") == "checkpoint"), "")


def _resource_loras(resources: Any) -> tuple[Lora, ...]:
    return tuple(Lora(name, _strength(each.get("weight"))) for each in dicts(resources)
                 if each.get("type") in ("lora", "lycoris") and (name := text(each.get("modelName"))))


def _weighted_loras(weights: Any) -> tuple[Lora, ...]:
    """Fooocus' list: `name: 0.5, name: 1`."""
    pairs = (part.rpartition(":") for part in text(weights).split(","))
    return tuple(Lora(name.strip(), _strength(weight)) for name, colon, weight in pairs if colon and name.strip())


def _unet_strength(written: str) -> float:
    """Of `te:unet:…`, in which each may be named (`te=0.5`) and the UNet's is the text encoder's if it is not there."""
    parts = [part.partition("=") for part in written.split(":")]
    named = {name.strip(): value for name, equals, value in parts if equals}
    plain = [value for value, equals, _ in parts if not equals]
    values = (named.get("unet"), *plain[1:2], named.get("te"), *plain[:1])
    return next((found for found in map(number, values) if found is not None), 1.0)


def _strength(value: Any) -> float:
    strength = number(value)
    return 1.0 if strength is None else strength
