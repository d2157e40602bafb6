"""Test and measure on this machine's graphics card, and write docs/card-<name>.md. `make card` calls this.

    python tools/card.py [--minutes 25] [--wheels FOLDER] [--out PAGE]   on the machine with the card; needs no network
    python tools/card.py --fetch FOLDER                                  before, on a machine with a network

The PyTorch that is there is used: that of this Python, or of `.venv`. What else is missing comes from the wheels that
tools/card_wheels.txt names, as `--fetch` has put them into a folder, into an environment of its own (`.venv-card`).
For wheels of another system or Python, give `--fetch` pip's options: `--fetch FOLDER --platform manylinux_2_28_x86_64
--python-version 3.12`.

Exit code: 0 where everything passed, and where there is no card (nothing is run or written then, which is said); 1
where tests failed, or something is missing to run them. Standard library only; what needs torch runs in a process of
its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from card_page import COMPILED, EAGER, GRAPHS, CardTests, Measurement, card_page  # noqa: E402

LOCK = ROOT / "tools" / "card_wheels.txt"
OWN = ROOT / ".venv-card"
NEEDED = ("diffusers", "peft", "transformers", "safetensors", "open_clip", "pytest", "hypothesis", "psutil", "PIL")
"""Without these nothing runs. bitsandbytes and what else the lock file names is skipped where it is missing."""
TEST_SECONDS = 10 * 60
PEERS = ("diffusers-style", "kohya-style")
NO_CARD = "No graphics card: 0 tests run, nothing measured, nothing written."

BENCHMARKS: tuple[tuple[str, tuple[str, ...], dict[str, float], float], ...] = (
    ("SD1.5, 512 px, batch 1", ("--family", "sd1", "--pixels", "512", "--batch", "1"),
     {"diffusers-style": 3.0, "kohya-style": 1.5}, 0.0),
    ("SD1.5, 512 px, batch 8", ("--family", "sd1", "--pixels", "512", "--batch", "8"),
     {"diffusers-style": 2.0, "kohya-style": 1.3}, 0.0),
    ("SDXL, 1024 px, batch 4", ("--family", "sdxl", "--pixels", "1024", "--batch", "4"), {}, 0.4),
    ("SDXL, 1024 px, batch 1", ("--family", "sdxl", "--pixels", "1024", "--batch", "1"), {}, 0.0),
)
"""Title, options, and aims: our speed over each peer's, and the share of the card's matrix speed."""
PROFILES = (("SD1.5, 512 px, batch 1", ("--family", "sd1", "--pixels", "512")),
            ("SDXL, 1024 px, batch 1", ("--family", "sdxl", "--pixels", "1024")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25, help="what does not fit is left out, and said so")
    parser.add_argument("--wheels", type=Path, default=ROOT / "wheels", help="folder of wheels (default: wheels)")
    parser.add_argument("--out", type=Path, help="the page (default: docs/card-<name>.md)")
    parser.add_argument("--fetch", type=Path, metavar="FOLDER", help="download the wheels instead")
    args, more = parser.parse_known_args()
    if args.fetch:
        return subprocess.call([sys.executable, "-m", "pip", "download", "--only-binary", ":all:", "--no-deps",
                                "-r", str(LOCK), "-d", str(args.fetch), *more])
    if more:
        parser.error(f"unknown: {' '.join(more)}")
    end = time.monotonic() + 60 * args.minutes
    found = with_card()
    if found is None:
        print(NO_CARD)
        return 0
    python, device = found
    python = complete(python, args.wheels)
    if not python:
        return 1
    name = re.sub(r"[^a-z0-9]+", "-", device["card"].lower()).strip("-")
    page = args.out or ROOT / "docs" / f"card-{name}.md"
    return measure(python, device, end, page)


def with_card() -> tuple[str, dict[str, str]] | None:
    """A Python whose PyTorch can use a card, and what that card is; None where none can."""
    code = ("import json, platform, torch, datetime\n"
            "assert torch.cuda.is_available()\n"
            "p = torch.cuda.get_device_properties(0)\n"
            "print(json.dumps({'card': p.name, 'date': str(datetime.date.today()), "
            "'memory': f'{p.total_memory / 2**30:.1f} GiB', 'compute capability': f'{p.major}.{p.minor}', "
            "'system': platform.platform(), 'Python': platform.python_version(), 'PyTorch': torch.__version__, "
            "'CUDA': str(torch.version.cuda or torch.version.hip)}))")
    for python in _pythons():
        with contextlib.suppress(OSError):
            asked = subprocess.run([python, "-W", "ignore", "-c", code], capture_output=True, text=True)
            if asked.returncode == 0:
                return python, json.loads(asked.stdout)
    return None


def _pythons() -> list[str]:
    inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    places = [Path(sys.executable), ROOT / ".venv" / inside]
    return list(dict.fromkeys(str(place) for place in places if place.exists()))


def missing(python: str) -> list[str]:
    """Which of the packages that are needed it has not."""
    code = ("import importlib.util, sys\n"
            "print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))")
    return subprocess.run([python, "-c", code, *NEEDED], check=True, capture_output=True, text=True).stdout.split()


def complete(python: str, wheels: Path) -> str:
    """A Python that has all that is needed: this one, or one of `.venv-card` upon it; "" and a message if neither."""
    absent = missing(python)
    if not absent:
        return python
    if not wheels.is_dir():
        print(f"There is a card, but {', '.join(absent)} is not installed, and there are no wheels in {wheels}. On a "
              f"machine with a network:\n    python tools/card.py --fetch {wheels.name}\nThen copy that folder here.",
              file=sys.stderr)
        return ""
    venv.create(OWN, with_pip=True, clear=True, symlinks=os.name != "nt")
    own = str(OWN / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    # The environment's packages come first, and after them all that the Python with the card has.
    paths = "import site, sysconfig; print(sysconfig.get_path('purelib'))"
    below = subprocess.run([python, "-c", "import os, torch; print(os.path.dirname(os.path.dirname(torch.__file__)))"],
                           check=True, capture_output=True, text=True).stdout.strip()
    site = subprocess.run([own, "-c", paths], check=True, capture_output=True, text=True).stdout.strip()
    (Path(site) / "zz-card.pth").write_text(below + "\n", encoding="utf-8")
    done = subprocess.call([own, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--find-links", str(wheels),
                            "-r", str(LOCK)])
    absent = missing(own)
    if done or absent:
        lack = f", or lack {', '.join(absent)}" if absent else ""
        print(f"The wheels in {wheels} could not be installed{lack}; pip's own words stand above. They have to be for "
              "this system and Python (see tools/card.py).", file=sys.stderr)
        return ""
    return own


def gpu_tests() -> list[str]:
    """The files whose tests bear the marker `gpu`; those called card_… are for a card alone."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")
                  if path.name.startswith(("test_", "card_")) and "pytest.mark.gpu" in path.read_text("utf-8"))


def run_tests(python: str, seconds: float, work: Path) -> CardTests:
    """All tests that a card changes, on it."""
    report = work / "tests.xml"
    began, ended = time.monotonic(), True
    try:
        done = subprocess.run(
            [python, "-m", "pytest", "-m", "gpu", "-p", "kit.real_card", "-p", "no:cacheprovider", "-q", "-o",
             "python_files=test_*.py card_*.py", f"--junitxml={report}", *gpu_tests()], cwd=ROOT, timeout=seconds,
            env={**os.environ, "PYTHONPATH": str(ROOT / "tests")})
        ended = done.returncode in (0, 1)
    except subprocess.TimeoutExpired:
        ended = False
    return read_report(report, time.monotonic() - began, ended)


def read_report(report: Path, seconds: float, ended: bool) -> CardTests:
    """The outcome that pytest wrote; of a run that was cut off there is none."""
    if not report.is_file():
        return CardTests(passed=0, failed=(), skipped={}, seconds=seconds, ended=False)
    passed, failed, skipped = 0, [], {}
    for case in ElementTree.parse(report).iter("testcase"):
        skip = case.find("skipped")
        if skip is not None:
            reason = str(skip.get("message"))
            skipped[reason] = skipped.get(reason, 0) + 1
        elif case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        else:
            passed += 1
    return CardTests(passed=passed, failed=failed, skipped=skipped, seconds=seconds, ended=ended)


def measure(python: str, device: dict[str, str], end: float, page: Path) -> int:
    """Run everything that there is time for, and write the page."""
    import tempfile

    left_out: list[str] = []
    with tempfile.TemporaryDirectory(prefix="atelier-card-", ignore_cleanup_errors=True) as work:
        tests = run_tests(python, min(TEST_SECONDS, end - time.monotonic()), Path(work))
    device = {**device, **_versions(python)}
    measured = []
    for title, options, goals, share in BENCHMARKS:
        arguments = ["benchmarks/train.py", "--size", "full", "--dtype", "bf16", *options, "--rounds", "2", "--json",
                     "--engines", EAGER, GRAPHS, COMPILED, *PEERS]
        result = _last_line(python, arguments, end, title, left_out)
        if result is not None:
            measured.append(Measurement(title=title, command="python " + " ".join(arguments), result=result,
                                        goals=goals, least_share=share))
    kernels = {}
    for title, options in PROFILES:
        found = _last_line(python, ["benchmarks/profile_step.py", "--size", "full", "--dtype", "bf16", *options,
                                    "--json"], end, f"kernels of {title}", left_out)
        if found is not None:
            kernels[title] = found
    part = page.with_suffix(".part")
    part.write_text(card_page(device, tests, measured, kernels, left_out), encoding="utf-8", newline="\n")
    part.replace(page)
    print(f"{tests.run} tests run, {len(tests.failed)} failed; {len(measured)} of {len(BENCHMARKS)} benchmarks. {page}")
    return int(bool(tests.failed) or not tests.ended)


def _last_line(python: str, arguments: list[str], end: float, title: str, left_out: list[str]) -> Any:
    """What a benchmark ends with, for programs; None, and a line in `left_out`, where it did not."""
    seconds = end - time.monotonic()
    if seconds < 30:
        left_out.append(f"{title}: no time was left.")
        return None
    try:
        done = subprocess.run([python, *arguments], cwd=ROOT, capture_output=True, text=True, encoding="utf-8",
                              timeout=seconds)
    except subprocess.TimeoutExpired:
        left_out.append(f"{title}: time ran out after {seconds:.0f} s.")
        return None
    for line in reversed(done.stdout.splitlines()):
        with contextlib.suppress(ValueError):
            return json.loads(line)
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    left_out.append(f"{title}: it failed ({last[:200]}).")
    return None


def _versions(python: str) -> dict[str, str]:
    code = ("import importlib.metadata as m, json\n"
            "def v(n):\n try: return m.version(n)\n except m.PackageNotFoundError: return 'not installed'\n"
            "print(json.dumps({n: v(n) for n in ('diffusers', 'peft', 'transformers', 'bitsandbytes')}))")
    found = json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)
    with contextlib.suppress(OSError):
        driver = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                                capture_output=True, text=True).stdout.splitlines()
        found["driver"] = driver[0].strip() if driver else "unknown"
    return found


if __name__ == "__main__":
    raise SystemExit(main())
