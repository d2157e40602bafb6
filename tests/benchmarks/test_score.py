"""The benchmark of CLIP scores at its smallest: its engines agree, and its last line is for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "score.py"


def test_the_engines_agree_and_the_last_line_is_json() -> None:
    run = subprocess.run([sys.executable, str(SCRIPT), "--size", "smallest", "--json"], capture_output=True,
                         encoding="utf-8", timeout=600)
    assert run.returncode == 0, run.stderr[-2000:]
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["device"] in ("cpu", "cuda")
    rows = {row["engine"]: row for row in result["rows"]}
    assert rows.keys() == {"atelier", "torchmetrics, metric(picture, text)", "torchmetrics, metric.update"}
    for row in rows.values():
        assert row["images_per_s"] > 0 and row["largest_difference"] < 1e-2, row  # of 100
