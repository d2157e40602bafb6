"""The editor's scripts: their own unit tests, and that they are whole."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = sorted((ROOT / "web").rglob("*.js"))


@pytest.mark.node
def test_javascript() -> None:
    node = shutil.which("node")
    assert node is not None
    tests = sorted(str(path) for path in (ROOT / "tests" / "js").glob("*.test.mjs"))
    assert tests
    run = subprocess.run([node, "--test", *tests], capture_output=True, text=True, encoding="utf-8", timeout=120)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    passed = re.search(r"^(?:#|ℹ) pass (\d+)", run.stdout, re.MULTILINE)
    assert passed and int(passed[1]) >= 25, run.stdout[-2000:]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_import_leads_to_a_file(path: Path) -> None:
    for wanted in re.findall(r"""from "(\.[^"]+)";""", path.read_text(encoding="utf-8")):
        # The editor's own scripts lie outside the pack, three folders up from web/js as the host serves it.
        if not wanted.startswith("../../../scripts/"):
            assert (path.parent / wanted).is_file(), wanted


def test_only_one_script_meets_the_editor() -> None:
    meeting = [path.name for path in SCRIPTS if "scripts/app.js" in path.read_text(encoding="utf-8")]
    assert meeting == ["atelier.js"]


def test_every_phase_of_a_training_has_words() -> None:
    sources = [*(ROOT / "atelier" / "train").glob("*.py"), ROOT / "atelier" / "dataset" / "encode.py"]
    phases = {phase for path in sources
              for phase in re.findall(r'progress\.phase\("(\w+)"', path.read_text(encoding="utf-8"))}
    assert phases >= {"loading", "encoding", "training", "sampling", "saving"}
    words = (ROOT / "web" / "js" / "training" / "words.js").read_text(encoding="utf-8")
    assert phases <= set(re.findall(r"^  (\w+): \"", words, re.MULTILINE))
