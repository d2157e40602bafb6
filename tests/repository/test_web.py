"""The editor's scripts: their own unit tests, and that they are whole."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atelier.train.step_rate import format_rate

ROOT = Path(__file__).resolve().parent.parent.parent
JS = ROOT / "web" / "js"
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


@pytest.mark.node
def test_the_panel_writes_speed_and_time_as_the_log_does() -> None:
    speeds = [0.0004, 0.05, 0.3, 0.8, 0.999, 1.0, 1.005, 1.125, 1.25, 2.675, 19.999, 123.456]
    table = [(speed, left) for speed in speeds for left in (0, 1, 59, 61, 3599, 12345)]
    module = (JS / "training" / "format.js").as_uri()
    script = f"""
        import {{ formatDuration, formatSpeed, secondsLeft }} from {json.dumps(module)};
        console.log(JSON.stringify({json.dumps(table)}.map(([speed, left]) => {{
          const seconds = secondsLeft({{ step: 0, steps: left, steps_per_second: speed }});
          return `${{formatSpeed(speed)}} · ${{formatDuration(seconds)}} left`;
        }})));"""
    run = subprocess.run(["node", "--input-type=module", "--eval", script], capture_output=True, text=True,
                         encoding="utf-8", timeout=60, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert json.loads(run.stdout) == [format_rate(speed, left) for speed, left in table]


def test_the_type_check_finds_what_is_wrong(tmp_path: Path) -> None:
    """Skipped where tools/check_js.py would skip it; it has said why."""
    sys.path.append(str(ROOT / "tools"))
    import check_js

    compiler, missing = check_js.compiler()
    if compiler is None:
        pytest.skip(f"they need {missing}")
    shutil.copytree(JS, tmp_path / "web" / "js")
    config = json.loads(check_js.CONFIG.read_text(encoding="utf-8"))
    config["include"] = [str(check_js.CONFIG.parent / "editor.d.ts"), "web/js/**/*.js"]
    (tmp_path / "tsconfig.json").write_text(json.dumps(config), encoding="utf-8")
    assert not check_js.errors(compiler, tmp_path / "tsconfig.json")
    feed = tmp_path / "web" / "js" / "training" / "feed.js"
    feed.write_text(feed.read_text(encoding="utf-8").replace("session.workflow ===", "session.worklow ==="),
                    encoding="utf-8")
    assert "worklow" in check_js.errors(compiler, tmp_path / "tsconfig.json")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_import_leads_to_a_file(path: Path) -> None:
    for wanted in re.findall(r"""from "(\.[^"]+)";""", path.read_text(encoding="utf-8")):
        # The editor's own scripts lie outside the pack, three folders up from web/js as the host serves it.
        if not wanted.startswith("../../../scripts/"):
            assert (path.parent / wanted).is_file(), wanted


def test_only_one_script_meets_the_editor() -> None:
    meeting = [path.name for path in SCRIPTS if "scripts/app.js" in path.read_text(encoding="utf-8")]
    assert meeting == ["atelier.js"]
