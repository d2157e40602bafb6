"""`make card`: what it says without a card, what it would run with one, and the page that it writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "tools"))

import card  # noqa: E402
from card_page import COMPILED, EAGER, CardTests, Measurement, card_page  # noqa: E402

DEVICE = {"card": "NVIDIA Test 9000", "date": "2026-11-27", "PyTorch": "2.13.0+cu130"}


def test_without_a_card_it_says_so_and_runs_and_writes_nothing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    run = subprocess.run([sys.executable, card.__file__, "--out", str(page)], capture_output=True, text=True,
                         env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert (run.returncode, run.stdout.strip()) == (0, "No graphics card: 0 tests run, nothing measured, nothing "
                                                       "written."), run.stderr
    assert not page.exists() and not card.OWN.exists()


def test_with_a_card_but_without_its_packages_it_says_what_to_fetch(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(card, "NEEDED", ("json", "no_such_package"))
    assert card.complete(sys.executable, tmp_path / "wheels") == ""
    said = capsys.readouterr().err
    assert "no_such_package is not installed" in said and "--fetch wheels" in said and "json" not in said


def test_it_runs_every_file_that_a_card_changes() -> None:
    assert {Path(file).name for file in card.gpu_tests()} >= {
        "card_parity.py", "card_run.py", "card_step.py", "card_real.py", "card_host.py", "test_loop.py",
        "test_compiled_unet.py", "test_sampling.py"}


def test_the_lock_names_one_version_of_each_package_and_nothing_of_cuda() -> None:
    lines = [line for line in card.LOCK.read_text("utf-8").splitlines() if not line.startswith("#")]
    names = [line.partition("==")[0] for line in lines]
    assert all(line.count("==") == 1 for line in lines) and len(set(names)) == len(names)
    assert {"diffusers", "peft", "transformers", "open-clip-torch", "openai", "pytest"} <= set(names)
    assert not [name for name in names if name.startswith(("torch", "nvidia", "triton"))]


def result(**speeds: float) -> dict[str, Any]:
    rows = [{"engine": engine.replace("_", "-"), "samples_per_s": speed, "peak_mb": 1000, "mfu": speed / 100,
             "steps": 20} for engine, speed in speeds.items()]
    return {"rows": rows, "batch": 2, "flops": 1.7e12, "matmul": 9e14}


def test_the_page_says_what_failed_what_was_missed_and_what_was_left_out() -> None:
    tests = CardTests(passed=7, failed=["tests.train.card_real::test_peak"], skipped={"they need ComfyUI": 2},
                        seconds=61, ended=True)
    met = Measurement(title="small", command="python a", goals={"diffusers-style": 3.0, "kohya-style": 1.5},
                      least_share=0.4, result=result(**{EAGER: 20, COMPILED: 45, "diffusers_style": 10}))
    missed = Measurement(title="large", command="python b", goals={"diffusers-style": 3.0}, least_share=0.4,
                         result=result(**{EAGER: 9, "diffusers_style": 10}))
    kernels = {"small": {"calls": 2000, "ms": 30.0, "rows": [{"name": "gemm|x", "share": 0.5, "ms": 15.0, "calls": 9}]}}
    page = card_page(DEVICE, tests, [met, missed], kernels, ["the huge one: no time was left."])
    for line in ("# NVIDIA Test 9000", "| PyTorch | 2.13.0+cu130 |", "7 of 8 tests passed in 61 s.",
                 "- failed: `tests.train.card_real::test_peak`", "- 2 skipped: they need ComfyUI",
                 "- at least 3 × diffusers-style: met, 4.50 ×", "- at least 1.5 × kohya-style: **not measured**",
                 "- at least 40% of the card's matrix speed: met, 45%", "- never slower than a peer: met",
                 "| diffusers-style | 10.00 | 0.2000 | 4.50 × | 1000 | 10.0% | 20 |",
                 "- at least 3 × diffusers-style: **missed**, 0.90 ×",
                 "- at least 40% of the card's matrix speed: **missed**, 9%",
                 "- never slower than a peer: **missed** (diffusers-style)",
                 "| `gemm/x` | 50.0% | 15.00 | 9 |", "- the huge one: no time was left."):
        assert line in page.splitlines(), line


def test_tests_that_were_cut_off_are_no_success(tmp_path: Path) -> None:
    cut = card.read_report(tmp_path / "none.xml", 600, True)
    assert not cut.ended and "**The tests did not run to their end.**" in card_page(DEVICE, cut, [], {}, [])
    report = tmp_path / "tests.xml"
    report.write_text('<testsuites><testsuite><testcase classname="a" name="one"/><testcase classname="a" name="two">'
                      '<failure/></testcase><testcase classname="a" name="three"><skipped message="no host"/>'
                      '</testcase></testsuite></testsuites>', encoding="utf-8")
    found = card.read_report(report, 9, True)
    assert (found.passed, found.failed, found.skipped, found.run) == (1, ["a::two"], {"no host": 1}, 2)
