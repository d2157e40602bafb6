"""A run of the suite ends, as failed and within a bounded time, whatever becomes of its workers and tests.

Each test runs pytest in a folder of its own, with this repository's settings and the options of `make test`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from kit import leash

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 120
"""For a run of a few small tests on a busy machine."""

CONFTEST = f"""
import sys
sys.path += [{str(ROOT / "tests")!r}, {str(ROOT)!r}]
from kit import memory

def pytest_configure(config):
    config.pluginmanager.register(memory.MemoryWatch(config), "memory")
"""
HANGING: dict[str, str] = {
    "test": "def test_test():\n    time.sleep(600)\n",
    "setup": "@pytest.fixture(scope='session')\ndef slow():\n    time.sleep(600)\n\ndef test_setup(slow):\n    pass\n",
    "teardown": "@pytest.fixture(scope='session')\ndef slow():\n    yield\n    time.sleep(600)\n\n"
                "def test_teardown(slow):\n    pass\n",
}


def run(folder: Path, files: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run some files of tests, each in a worker of its own, as `make test` does."""
    (folder / "conftest.py").write_text(CONFTEST + files.pop("conftest", ""), encoding="utf-8")
    for name, code in files.items():
        (folder / f"test_{name}.py").write_text(f"import os, signal, subprocess, sys, time\nimport pytest\n{code}",
                                                encoding="utf-8")
    (distribution,) = re.findall(r"-m pytest -n auto (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder),
         "-p", "xdist.plugin", "-n", str(len(files)), *distribution.split(), *options, str(folder)],
        capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=SECONDS, check=False, cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})


def test_a_test_has_minutes(pytestconfig: pytest.Config) -> None:
    assert 0 < float(pytestconfig.getini("faulthandler_timeout")) <= 600
    assert pytestconfig.getini("faulthandler_exit_on_timeout")


def test_a_killed_worker_fails_the_run_and_takes_its_children_with_it(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    done = run(tmp_path, {"harmless": "def test_harmless():\n    pass\n", "dies": f"""
def test_dies():
    child = subprocess.Popen([sys.executable, {leash.__file__!r}, {str(tmp_path / "child.py")!r}],
                             stdin=subprocess.PIPE)
    open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
"""})
    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_dies" in done.stdout and "crashed" in done.stdout
    child = int((tmp_path / "pid").read_text())
    end = time.monotonic() + 20
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the child is still there"
        time.sleep(0.1)


def test_what_hangs_fails_the_run_and_shows_where(tmp_path: Path) -> None:
    done = run(tmp_path, dict(HANGING), "-o", "faulthandler_timeout=2")
    assert done.returncode == 1, done.stdout + done.stderr
    for name in HANGING:
        assert re.search(rf"crashed while running .*test_{name}", done.stdout), done.stdout
        assert f"test_{name}.py" in done.stderr, "no stack"


def test_too_much_memory_fails_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, {"conftest": "memory.WORKER_LIMIT = 3e8\n",
                          "little": "def test_little():\n    pass\n",
                          "much": "def test_much():\n    assert bytearray(3 * 10**8)[-1] == 0\n"})
    assert done.returncode == 1, done.stdout
    assert "2 passed" in done.stdout
    little, much = sorted(re.findall(r"peak memory of gw\d: (\S+) GB", done.stdout), key=float)
    assert float(little) < 0.3 < float(much)
    (named,) = re.findall(r"FAILED memory: gw\d used (\S+) GB \(.*test_much\), more than 0\.3 GB", done.stdout)
    assert named == much
