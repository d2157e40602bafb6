"""Training, resuming, encoding, sampling and scoring on a pretend CUDA device, in a process of its own.

As a card of before Ampere, which computes in float16, and as one after it, in bfloat16. See `kit.pretend_cuda`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kit.pretend_cuda.build import library, why_not

TESTS = Path(__file__).resolve().parent.parent

EVERYWHERE = "train/card_run.py", "train/card_parity.py", "train/test_trainer.py"
"""Files that both kinds of card run."""
ONCE = ("train/card_step.py", "train/card_launches.py", "train/card_real.py", "test_sampling.py",
        "train/test_captured_step.py::test_replayed_steps_are_plain_ones",
        "train/test_loop_ended.py", "train/test_loop.py::test_an_interrupted_run_goes_on_bit_for_bit[extra2]")
"""What does not depend on the kind of card. card_real.py needs a real one, and is only loaded here."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=f"they need {why_not()}")]


@pytest.mark.parametrize(("capability", "files"), [("7.5", EVERYWHERE), ("8.6", EVERYWHERE + ONCE)])
def test_what_a_card_changes_holds_on_the_pretend_one(capability: str, files: tuple[str, ...]) -> None:
    library()  # built here, so that a compiler's complaint is this test's failure
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "kit.pretend_cuda.plugin", "-p", "no:cacheprovider",
         *(str(TESTS / file) for file in files)],
        cwd=TESTS.parent, capture_output=True, text=True, check=False,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
             "PRETEND_CC": capability, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) >= len(files)
