"""Models compared on the same prompts and seeds: means, a ranking that knows noise, tables and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from dataclasses import dataclass

from ..errors import AtelierError
from .paired import FEWEST, holm, sign_flip_p

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Shot:
    """One picture of a comparison."""

    model: int
    """Place among the models, from 0."""
    prompt: int
    """Place among the prompts, from 0."""
    seed: int
    score: float | None = None
    """CLIP score; None where none was asked for."""
    seconds: float | None = None
    """Sampling and decoding; the model's way to the device is in the first picture's."""
    peak: int | None = None
    """Bytes on the device at most; None where the device does not tell."""


@dataclass(frozen=True)
class Standing:
    """A model's place in the ranking."""

    model: int
    mean: float
    std: float
    """Standard deviation over the pictures (divided by n)."""
    n: int
    difference: float = 0.0
    """Mean minus that of the best."""
    p: float | None = None
    """Chance of such a difference by luck alone, corrected for the number of comparisons; None for the best itself."""

    @property
    def verdict(self) -> str:
        """What the difference to the best is worth."""
        if self.p is None:
            return "best"
        if self.n < FEWEST:
            return f"too few pairs to tell (at least {FEWEST})"
        return f"worse (p {self.p:.2g})" if self.p < SIGNIFICANT else f"within noise (p {self.p:.2g})"


@dataclass(frozen=True)
class Comparison:
    """All pictures of some models on the same prompts and seeds.

    Raises:
        AtelierError: a picture is missing or there twice, or only some have scores.
    """

    models: tuple[str, ...]
    """Labels, each its own."""
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    shots: tuple[Shot, ...]
    scored_by: str = ""
    """Model and definition of the scores."""

    def __post_init__(self) -> None:
        wanted = {(m, p, s) for m in range(len(self.models)) for p in range(len(self.prompts)) for s in self.seeds}
        have = [(shot.model, shot.prompt, shot.seed) for shot in self.shots]
        if not wanted or set(have) != wanted or len(have) != len(wanted):
            raise AtelierError(f"A comparison of {len(self.models)} models needs each prompt and seed once for each "
                               f"({len(wanted)} pictures); there are {len(have)}.", "Run the comparison to its end.")
        if len({shot.score is None for shot in self.shots}) > 1:
            raise AtelierError("Some pictures of the comparison have no score.", "Score all or none.")

    @property
    def scored(self) -> bool:
        """Whether the pictures have scores."""
        return self.shots[0].score is not None

    def shot(self, model: int, prompt: int, seed: int) -> Shot:
        """The picture of a model for a prompt and a seed."""
        return next(s for s in self.shots if (s.model, s.prompt, s.seed) == (model, prompt, seed))

    def scores(self, model: int, prompt: int | None = None) -> list[float]:
        """A model's scores by prompt and seed, or those of one prompt by seed; empty where there are none."""
        prompts = range(len(self.prompts)) if prompt is None else [prompt]
        found = [self.shot(model, p, seed).score for p in prompts for seed in self.seeds]
        return [score for score in found if score is not None]

    def ranking(self) -> list[Standing]:
        """The models by their mean score, best first, each compared with the best on the same prompts and seeds."""
        if not self.scored:
            return []
        order = sorted(range(len(self.models)), key=lambda m: -statistics.fmean(self.scores(m)))
        best = self.scores(order[0])
        apart = {m: [a - b for a, b in zip(self.scores(m), best, strict=True)] for m in order[1:]}
        chances = dict(zip(apart, holm([sign_flip_p(d) for d in apart.values()]), strict=True))
        return [Standing(m, statistics.fmean(self.scores(m)), statistics.pstdev(self.scores(m)), len(best),
                         statistics.fmean(apart[m]) if m in apart else 0.0, chances.get(m)) for m in order]

    def median_seconds(self, model: int) -> float | None:
        """Of a model's pictures, as far as they are known; the first one's loading does not count in a median."""
        known = [s.seconds for s in self.shots if s.model == model and s.seconds is not None]
        return statistics.median(known) if known else None

    def table(self) -> str:
        """Aligned text: one line a model in the ranking's order, then means by prompt."""
        standings = self.ranking()
        order = [s.model for s in standings] or list(range(len(self.models)))
        by_model = {s.model: s for s in standings}
        head = ["model", *(["mean", "std", "n", "to best"] if standings else []), "s/picture", "peak GB"]
        rows = []
        for model in order:
            row = [_squeezed(self.models[model], 40)]
            if standings:
                s = by_model[model]
                row += [f"{s.mean:.4f}", f"{s.std:.4f}", str(s.n), f"{s.difference:+.4f}" if s.p is not None else "–"]
            rows.append([*row, _seconds(self.median_seconds(model)), _gigabytes(self._peak(model))])
        notes = [by_model[m].verdict if standings else "" for m in order]
        lines = [line + (f"  {note}" if note else "") for line, note in
                 zip(_aligned([head, *rows]), ["", *notes], strict=True)]
        if standings:
            per_prompt = [["mean by prompt", *(_squeezed(self.models[m], 24) for m in order)]]
            per_prompt += [[_short(prompt), *(f"{statistics.fmean(self.scores(m, p)):.4f}" for m in order)]
                           for p, prompt in enumerate(self.prompts)]
            lines += ["", *_aligned(per_prompt), "", self.scored_by]
        return "\n".join(lines)

    def csv(self) -> str:
        """One line a picture, with a head line."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["model", "prompt", "seed", "score", "seconds", "peak_bytes", "scored_by"])
        for s in self.shots:
            writer.writerow([self.models[s.model], self.prompts[s.prompt], s.seed, s.score, s.seconds, s.peak,
                             self.scored_by])
        return out.getvalue()

    def _peak(self, model: int) -> int | None:
        return max((s.peak for s in self.shots if s.model == model and s.peak is not None), default=None)


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _gigabytes(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e9:.2f}"


def _short(text: str, length: int = 40) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[:length - 1] + "…"


def _squeezed(name: str, length: int) -> str:
    """A model's name, without its middle if it is long: LoRAs and strengths tell names apart and stand at the end."""
    line = " ".join(name.split())
    head = (length - 1) // 3
    return line if len(line) <= length else f"{line[:head]}…{line[head + 1 - length:]}"


def _aligned(rows: list[list[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in
                                                   zip(row[1:], widths[1:], strict=True))]) for row in rows]
