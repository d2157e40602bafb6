"""The page that `make card` writes: what a graphics card was tested and measured with, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COMPILED, EAGER, GRAPHS = "atelier-compiled", "atelier-eager", "atelier-graphs"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A run of benchmarks/train.py, and the aims of it."""

    title: str
    command: str
    result: Mapping[str, Any]
    """The line for programs that it ends with."""
    goals: Mapping[str, float] = field(default_factory=dict)
    """The least ratio of our speed to each engine's."""
    least_share: float = 0.0
    """The least share of the card's speed in matrix products; 0: none is aimed at."""

    @property
    def ours(self) -> Mapping[str, Any]:
        """The row of Atelier that was fastest: eager, with CUDA graphs, or compiled."""
        rows = [row for row in self.result["rows"] if row["engine"] in (EAGER, GRAPHS, COMPILED)]
        return max(rows, key=lambda row: row["samples_per_s"])

    def ratio(self, engine: str) -> float | None:
        """Our speed over an engine's; None if that was not measured."""
        found = [row for row in self.result["rows"] if row["engine"] == engine]
        return self.ours["samples_per_s"] / found[0]["samples_per_s"] if found else None

    def verdicts(self) -> list[str]:
        """A sentence for each aim: met, missed, or not measured."""
        lines = []
        for engine, least in self.goals.items():
            ratio = self.ratio(engine)
            lines.append(f"at least {least:g} × {engine}: " + (
                "**not measured**" if ratio is None else f"{_met(ratio >= least)}, {ratio:.2f} ×"))
        if self.least_share:
            share = self.ours["mfu"]
            lines.append(f"at least {self.least_share:.0%} of the card's matrix speed: "
                         f"{_met(share >= self.least_share)}, {share:.0%}")
        slower = [row["engine"] for row in self.result["rows"] if row["samples_per_s"] > self.ours["samples_per_s"]]
        lines.append("never slower than a peer: " + _met(not slower) + (f" ({', '.join(slower)})" if slower else ""))
        return lines


@dataclass(frozen=True, kw_only=True)
class CardTests:
    """How the tests ended."""

    passed: int
    failed: Sequence[str]
    """Names."""
    skipped: Mapping[str, int]
    """How many for each reason."""
    seconds: float
    ended: bool
    """False where time ran out, or pytest itself failed: then tests are missing."""

    @property
    def run(self) -> int:
        """How many ran."""
        return self.passed + len(self.failed)


def card_page(device: Mapping[str, str], tests: CardTests, measured: Sequence[Measurement],
              kernels: Mapping[str, Mapping[str, Any]], left_out: Sequence[str]) -> str:
    """The page, in Markdown.

    Args:
        device: What the card and the programs are, by name: at least "card" and "date".
        tests: Of the marker `gpu`.
        measured: The benchmarks.
        kernels: What benchmarks/profile_step.py found, by title.
        left_out: What was not done, and why.
    """
    parts = [f"# {device['card']}", "", "Written by `make card`; nothing here is edited by hand.", "",
             "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in device.items()), "",
             "## Tests", "", _tests(tests)]
    if measured:
        parts += ["", "## Training"]
    for one in measured:
        parts += ["", *_table(one)]
    for title, found in kernels.items():
        parts += ["", f"## The slowest kernels: {title}", "",
                  f"{found['calls']:.0f} launches and {found['ms']:.1f} ms of kernels a step.", "",
                  "| kernel | share | ms a step | launches a step |", "|---|---:|---:|---:|",
                  *(f"| `{row['name'][:90].replace('|', '/')}` | {row['share']:.1%} | {row['ms']:.2f} | "
                    f"{row['calls']:.0f} |" for row in found["rows"])]
    parts += ["", "## Left out", "", *([f"- {line}" for line in left_out] or ["Nothing."])]
    return "\n".join(parts) + "\n"


def _tests(tests: CardTests) -> str:
    said = f"{tests.passed} of {tests.run} tests passed in {tests.seconds:.0f} s."
    if not tests.ended:
        said = f"**The tests did not run to their end.** Until then: {said}"
    for name in tests.failed:
        said += f"\n- failed: `{name}`"
    for reason, count in tests.skipped.items():
        said += f"\n- {count} skipped: {reason}"
    return said


def _table(one: Measurement) -> list[str]:
    result = one.result
    lines = [f"### {one.title}", "", f"`{one.command}` ({result['flops'] / 1e9:.0f} GFLOP a sample, matrix product "
             f"{result['matmul'] / 1e12:.0f} TFLOP/s)", "",
             "| engine | samples/s | s a step | ours is | peak MB | of matmul | steps timed |",
             "|---|---:|---:|---:|---:|---:|---:|"]
    for row in result["rows"]:
        ratio = one.ours["samples_per_s"] / row["samples_per_s"]
        lines.append(f"| {row['engine']} | {row['samples_per_s']:.2f} | {result['batch'] / row['samples_per_s']:.4f} | "
                     f"{ratio:.2f} × | {row['peak_mb']:.0f} | {row['mfu']:.1%} | {row['steps']} |")
    return [*lines, "", *(f"- {line}" for line in one.verdicts())]


def _met(met: bool) -> str:
    return "met" if met else "**missed**"
