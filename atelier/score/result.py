"""Score results, with the settings needed to interpret them."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import AtelierError
from .crop import ClipCrop
from .definitions import Definition


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well one picture matches its text."""

    picture: int
    """Index of the picture among the scored ones."""
    text: str
    """The text it was compared with, prefix included."""
    cosine: float
    """Cosine of the two embeddings, -1 … 1."""
    value: float
    """The cosine under the chosen definition."""
    tokens: int
    """Encoded tokens of the text."""
    cut: int
    """Tokens of the text that were cut off."""
    style: float | None = None
    """Value against the style text, under the same definition."""
    likeness: float | None = None
    """Mean value against the reference pictures, under the same definition."""
    aesthetic: float | None = None
    """How much people like the picture, 1 … 10 (see `aesthetic.AestheticHead`)."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of some pictures. Numbers of different models, definitions or crops are not comparable."""

    items: tuple[Score, ...]
    model: str
    definition: Definition
    crop: ClipCrop
    style_text: str = ""
    note: str = ""
    """Settings that were assumed about the model; empty if none."""
    likeness_by: str = ""
    """The model that compared with the reference pictures, where that is another one."""
    aesthetic_by: str = ""
    """The file that predicted what people like; empty without one."""

    def __post_init__(self) -> None:
        if not self.items:
            raise AtelierError("There are no scores.", "Score at least one picture.")

    @property
    def mean(self) -> float:
        """Mean value over the pictures."""
        return statistics.fmean(score.value for score in self.items)

    @property
    def std(self) -> float:
        """Standard deviation of the values over these pictures (of a population: divided by n)."""
        return statistics.pstdev(score.value for score in self.items)

    def best(self, k: int) -> tuple[int, ...]:
        """Indices of the `k` best pictures, best first; ties go to the earlier one.

        Raises:
            AtelierError: `k` is not between 1 and the number of pictures.
        """
        if not 1 <= k <= len(self.items):
            raise AtelierError(f"k is {k}, and there are {len(self.items)} scored pictures.",
                               f"Choose between 1 and {len(self.items)}.")
        return tuple(sorted(range(len(self.items)), key=lambda index: -self.items[index].value)[:k])

    def chosen(self, indices: Sequence[int]) -> Scores:
        """The scores at these indices, in this order and renumbered from 0."""
        items = tuple(replace(self.items[index], picture=new) for new, index in enumerate(indices))
        return replace(self, items=items)

    def table(self) -> str:
        """The scores as aligned text, one line a picture, mean and deviation at the end."""
        extra = self._extra_columns()
        head = ["#", "score", *extra, "tokens", "cut", "text"]
        rows = [[str(score.picture + 1), f"{score.value:.4f}", *(f"{getattr(score, name):.4f}" for name in extra),
                 str(score.tokens), str(score.cut), _shortened(score.text)] for score in self.items]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head) - 1)]
        lines = ["  ".join([*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
                 for row in [head, *rows]]
        lines += [f"mean {self.mean:.4f}  std {self.std:.4f}  n {len(self.items)}",
                  f"{self.model}, {self.definition.value}, crop {self.crop.value}"]
        if self.style_text:
            lines.append(f"style: {self.style_text}")
        if self.likeness_by:
            lines.append(f"likeness by {self.likeness_by}")
        if self.aesthetic_by:
            lines.append(f"aesthetic by {self.aesthetic_by}")
        if self.note:
            lines.append(self.note)
        return "\n".join(lines)

    def csv(self) -> str:
        """The scores as comma-separated values with a head line; every line names model, definition and crop."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["picture", "score", "cosine", "style", "likeness", "tokens", "cut", "text", "style_text",
                         "model", "definition", "crop", "aesthetic", "likeness_by", "aesthetic_by"])
        for s in self.items:
            writer.writerow([s.picture, s.value, s.cosine, s.style, s.likeness, s.tokens, s.cut, s.text,
                             self.style_text, self.model, self.definition.value, self.crop.value, s.aesthetic,
                             self.likeness_by, self.aesthetic_by])
        return out.getvalue()

    def _extra_columns(self) -> list[str]:
        return [name for name in ("style", "likeness", "aesthetic") if getattr(self.items[0], name) is not None]


def _shortened(text: str, length: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[:length - 1] + "…"
