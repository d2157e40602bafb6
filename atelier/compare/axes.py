"""The two axes of an XY grid: values that a person types, and the comparison that they make."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from ..errors import AtelierError
from .compared_model import ComparedModel

MOST_CELLS = 2500
NO_LORA = "none"
"""Value of an axis of LoRAs that stands for the checkpoint alone."""


class Field(str, Enum):
    """What an axis varies."""

    NOTHING = "nothing"
    """The axis has one value, so that the grid is a row or a column."""
    CHECKPOINT = "checkpoint"
    LORA = "lora"
    STRENGTH = "strength"
    STEPS = "steps"
    CFG = "cfg"
    SAMPLER = "sampler"
    SCHEDULER = "scheduler"
    PRECISION = "precision"
    PROMPT = "prompt"
    SEED = "seed"


@dataclass(frozen=True)
class Axis:
    """What varies along an axis, and its values in order."""

    field: Field
    values: tuple[str | int | float, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """A text for each value; files by the shortest names that tell them apart from each other."""
        if self.field is Field.NOTHING:
            return ("",)
        if self.field in (Field.CHECKPOINT, Field.LORA):
            paths = [PurePosixPath(str(value).replace("\\", "/")) for value in self.values]
            return tuple(_short(path, [other for other in paths if other != path]) for path in paths)
        if self.field is Field.PROMPT:
            return tuple(map(str, self.values))
        return tuple(f"{self.field.value} {value:g}" if isinstance(value, float) else f"{self.field.value} {value}"
                     for value in self.values)


@dataclass(frozen=True, kw_only=True)
class XYPlan:
    """The comparison that two axes make."""

    x: Axis
    y: Axis
    models: tuple[ComparedModel, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: Mapping[tuple[int, int], tuple[int, int, int]]
    """Which picture (index of model, index of prompt, seed) is the cell (column, row)."""


def parse_axis(field: Field, text: str, names: Mapping[Field, Sequence[str]]) -> Axis:
    """The axis that a person typed.

    Args:
        field: What varies.
        text: Values, one a line or with commas; prompts one a line.
        names: For fields that are names, those that exist.

    Raises:
        AtelierError: there is no value, one that is no such value, or one twice.
    """
    if field is Field.NOTHING:
        return Axis(field, ("",))
    parts = text.splitlines() if field is Field.PROMPT else re.split(r"[,\n]", text)
    typed = [part.strip() for part in parts if part.strip()]
    if not typed:
        raise AtelierError(f"The axis of {field.value} has no values.", "Type one a line.")
    values: list[str | int | float] = []
    for each in typed:
        values += _matching(field, each, names[field]) if field in names else [_value(field, each)]
    if twice := next((value for number, value in enumerate(values) if value in values[:number]), None):
        raise AtelierError(f"The axis of {field.value} has the value {twice!r} twice.", "Leave one of them out.")
    return Axis(field, tuple(values))


def plan(model: ComparedModel, prompt: str, seed: int, x: Axis, y: Axis) -> XYPlan:
    """What to draw for a grid of `x` (columns) and `y` (rows), with everything else as in `model`, `prompt`, `seed`.

    Raises:
        AtelierError: both axes vary the same, an axis of strengths lacks a LoRA, or there are too many cells.
    """
    if x.field is y.field:
        raise AtelierError(f"Both axes vary {x.field.value}.", "Choose another for one of them.")
    if len(x.values) * len(y.values) > MOST_CELLS:
        raise AtelierError(f"A grid of {len(x.values)} × {len(y.values)} cells has too many.",
                           f"Choose fewer values: {MOST_CELLS} cells are the most.")
    if Field.STRENGTH in (x.field, y.field) and Field.LORA not in (x.field, y.field) and not model.lora:
        raise AtelierError("The axis of strength has no LoRA whose strength it would be.",
                           "Choose a LoRA in Model to Compare, or an axis of LoRAs.")
    drawn = {(i, j): _varied(_varied((model, prompt, seed), x.field, x_value), y.field, y_value)
             for j, y_value in enumerate(y.values) for i, x_value in enumerate(x.values)}
    # Models with one checkpoint, then with one LoRA, one after the other: each file is loaded once.
    checkpoints, loras = ([*dict.fromkeys(getattr(each, name) for each, _, _ in drawn.values())]
                          for name in ("checkpoint", "lora"))
    models = sorted(dict.fromkeys(each for each, _, _ in drawn.values()),
                    key=lambda each: (checkpoints.index(each.checkpoint), loras.index(each.lora)))
    prompts = list(dict.fromkeys(text for _, text, _ in drawn.values()))
    seeds = list(dict.fromkeys(number for _, _, number in drawn.values()))
    return XYPlan(x=x, y=y, models=tuple(models), prompts=tuple(prompts), seeds=tuple(seeds),
                  cells={cell: (models.index(each), prompts.index(text), number)
                         for cell, (each, text, number) in drawn.items()})


Drawn = tuple[ComparedModel, str, int]
"""What one picture is drawn with."""


def _varied(drawn: Drawn, field: Field, value: str | int | float) -> Drawn:
    model, prompt, seed = drawn
    if field is Field.NOTHING:
        return drawn
    if field is Field.PROMPT:
        return model, str(value), seed
    if field is Field.SEED:
        return model, prompt, int(value)
    if field is Field.LORA and value == NO_LORA:
        value = ""
    return replace(model, label="", **{field.value: value}), prompt, seed


def _matching(field: Field, typed: str, names: Sequence[str]) -> list[str]:
    """The names that `typed` is, or matches with * and ?."""
    if field is Field.LORA and typed == NO_LORA:
        return [NO_LORA]
    plain = {name.replace("\\", "/"): name for name in names}
    typed = typed.replace("\\", "/")
    found = [plain[name] for name in plain if typed in (name, name.rsplit(".", 1)[0])][:1]
    if not found and re.search(r"[*?]", typed):
        found = sorted((plain[name] for name in plain if fnmatchcase(name, typed) or
                        fnmatchcase(name.rsplit(".", 1)[0], typed)), key=_natural)
    if not found:
        raise AtelierError(f"There is no {field.value} {typed!r}.",
                           "Type a name as the list in Model to Compare spells it, or a part of it with * for the "
                           "rest.")
    return found


def _value(field: Field, typed: str) -> int | float | str:
    kinds: dict[Field, Callable[[str], int | float]] = {
        Field.STRENGTH: float, Field.CFG: float, Field.STEPS: int, Field.SEED: int}
    kind = kinds.get(field)
    if kind is None:
        return typed
    least, most = _RANGES[field]
    try:
        value = kind(typed)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise AtelierError(f"The axis of {field.value} has the value {typed!r}.",
                           f"Type {'whole ' if kind is int else ''}numbers from {least:g} to {most:g}.")
    return value


_RANGES = {Field.STRENGTH: (-10, 10), Field.CFG: (0, 100), Field.STEPS: (1, 10_000), Field.SEED: (0, 2**63 - 1)}


def _short(path: PurePosixPath, others: Sequence[PurePosixPath]) -> str:
    """The file's name with the folders, or at last the ending, that tell it apart from `others`."""
    parts, rest = path.with_suffix("").parts, [other.with_suffix("").parts for other in others]
    for count in range(1, len(parts)):
        if all(parts[-count:] != each[-count:] for each in rest):
            return "/".join(parts[-count:])
    return str(path if parts in rest else path.with_suffix(""))


def _natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """`b2` before `B10`."""
    return tuple((0, int(part)) if part.isdecimal() else (1, part.casefold()) for part in re.split(r"([0-9]+)", name))
