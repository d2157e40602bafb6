"""The benchmarks of training at their smallest: they measure every engine, and end with a line for programs.

How fast ours is decides nothing here: beside other work, a run of minutes cannot tell. `make bench` asks that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


def test_both_loops_are_measured_side_by_side() -> None:
    run = subprocess.run([sys.executable, str(BENCHMARKS / "train.py"), "--size", "smallest", "--rounds", "1", "--json",
                          "--family", "sdxl", "--steps", "2", "--seconds", "0.3",
                          "--engines", "atelier-eager", "diffusers-style"],
                         capture_output=True, encoding="utf-8", timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"})
    rows = {row["engine"]: row for row in json.loads(run.stdout.splitlines()[-1])["rows"]}
    assert rows.keys() == {"atelier-eager", "diffusers-style"}
    assert all(row["samples_per_s"] > 0 and row["peak_mb"] > 0 for row in rows.values())
    assert all(row["steps"] > 2 for row in rows.values()), "so many steps take less time than was asked for"
    assert rows["atelier-eager"]["ours_at_best_is"] == 1
    assert run.returncode == (rows["diffusers-style"]["ours_at_best_is"] < 1), run.stderr[-2000:]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="pages cannot be given back on this system")
def test_the_way_to_the_first_step_is_measured() -> None:
    run = subprocess.run([sys.executable, str(BENCHMARKS / "first_step.py"), "--size", "smallest", "--rounds", "1",
                          "--json"], capture_output=True, encoding="utf-8", timeout=600)
    assert run.returncode == 0, run.stdout[-1000:] + run.stderr[-2000:]
    result = json.loads(run.stdout.splitlines()[-1])
    floor, ours, ended = (row["seconds"] for row in result["rows"])
    assert 0 <= floor < min(ours, ended) and result["ratio"] > 1 and result["ratio_to_end"] > 1


@pytest.mark.skipif(sys.platform != "linux", reason="the peak cannot be reset on this system")
def test_the_peak_is_that_of_the_timed_steps() -> None:
    """What was in use while the model was loaded, and is not any more, does not count."""
    code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
            "from benchmarks._train_engines import peak_mb, reset_peak\n"
            "import torch\n"
            "torch.ones(60_000_000); before = peak_mb()\n"
            "reset_peak(); after = peak_mb(); kept = torch.ones(10_000_000)\n"
            "print(before, after, peak_mb())")
    run = subprocess.run([sys.executable, "-c", code, str(BENCHMARKS.parent)], capture_output=True, text=True,
                         check=True)
    before, after, peak = map(float, run.stdout.split())
    assert before - after > 200 and 30 < peak - after < 60
