"""A comparison as text: an aligned table or CSV."""

from __future__ import annotations

import csv
import io
import statistics

from .run import Comparison

LOADED = "*"
"""Marks seconds that include loading."""


def table(comparison: Comparison) -> str:
    """One line a model in the ranking's order, then mean and standard deviation by prompt."""
    ranking = comparison.ranking()
    models = comparison.models
    order = [s.model for s in ranking] or list(range(len(models)))
    rows = [["model", *(["mean", "std", "n", "to best"] if ranking else []), "s/picture", "peak GB"]]
    for position, model in enumerate(order):
        row = [_shortened_middle(models[model], 40)]
        if ranking:
            s = ranking[position]
            row += [f"{s.mean:.4f}", f"{s.std:.4f}", str(s.n), f"{s.difference:+.4f}" if s.p is not None else "–"]
        rows.append([*row, _seconds(comparison, model), _gigabytes(comparison.peak(model))])
    verdicts = ["", *(s.verdict for s in ranking)] if ranking else [""] * len(rows)
    lines = [line + (f"  {verdict}" if verdict else "") for line, verdict in
             zip(_aligned(rows), verdicts, strict=True)]
    if ranking:
        by_prompt = [[f"mean ± std by prompt, n {len(comparison.seeds)}",
                      *(_shortened_middle(models[m], 24) for m in order)]]
        by_prompt += [[_short(prompt), *(_spread(comparison.scores(m, p)) for m in order)]
                      for p, prompt in enumerate(comparison.prompts)]
        lines += ["", *_aligned(by_prompt), "", comparison.scored_by]
    if any(comparison.seconds(model)[1] for model in order):
        lines += ["", f"{LOADED} with loading: there is no picture without it"]
    return "\n".join(lines)


def csv_text(comparison: Comparison) -> str:
    """One line a picture, with a head line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "prompt", "seed", "score", "seconds", "loading", "peak_bytes", "scored_by"])
    for s in comparison.images:
        writer.writerow([comparison.models[s.model], comparison.prompts[s.prompt], s.seed, s.score, s.seconds,
                         int(s.loading), s.peak, comparison.scored_by])
    return out.getvalue()


def _seconds(comparison: Comparison, model: int) -> str:
    value, loading = comparison.seconds(model)
    return "–" if value is None else f"{value:.2f}{LOADED if loading else ''}"


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.4f} ± {statistics.pstdev(values):.4f}"


def _gigabytes(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e9:.2f}"


def _short(text: str, length: int = 40) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[:length - 1] + "…"


def _shortened_middle(name: str, length: int) -> str:
    """A model's name, shortened in the middle: LoRA and strength, which distinguish names, are at its end."""
    line = " ".join(name.split())
    head = (length - 1) // 3
    return line if len(line) <= length else f"{line[:head]}…{line[head + 1 - length:]}"


def _aligned(rows: list[list[str]]) -> list[str]:
    """Align the first column left and the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in
                                                   zip(row[1:], widths[1:], strict=True))]) for row in rows]
