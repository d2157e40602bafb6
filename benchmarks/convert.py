"""Checkpoint to diffusers folder and back: Atelier beside copying the same file and flushing it, and beside diffusers.

    python benchmarks/convert.py [--size smallest|default|sdxl] [--rounds 5] [--diffusers] [--work FOLDER] [--json]

Every engine is a process of its own, started from nothing, its start counted; they take turns, so that other load on
the machine affects all equally. The file holds random weights. A copy is the floor: every byte has to be written.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SIZES = {"smallest": ("write_sd1", "tiny"), "default": ("write_sd1", "full"), "sdxl": ("write_sdxl", "full")}

# In a process of its own: a process starts with the peak of the one that started it, so this one has to stay small.
WRITE = """
import sys
from pathlib import Path
sys.path += ["tests"]
from kit import checkpoints
getattr(checkpoints, sys.argv[1])(Path(sys.argv[3]), shape=sys.argv[2])
"""

COPY = """
import os, shutil, sys
source, target = sys.argv[1:]
shutil.copyfile(source, target)
with open(target, "r+b") as file:
    os.fsync(file.fileno())
"""

TO_FOLDER = """
import sys
from pathlib import Path
from atelier.convert import to_folder
to_folder(Path(sys.argv[1]), Path(sys.argv[2]))
"""

TO_CHECKPOINT = TO_FOLDER.replace("to_folder", "to_checkpoint")

DIFFUSERS = """
import sys, torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
kind = StableDiffusionXLPipeline if "xl" in sys.argv[1] else StableDiffusionPipeline
pipeline = kind.from_single_file(sys.argv[1], config=sys.argv[3], torch_dtype=torch.float16)
pipeline.save_pretrained(sys.argv[2])
"""


@dataclass
class Engine:
    """One way to do the job, and what was measured."""

    name: str
    command: list[str]
    seconds: list[float] = field(default_factory=list)
    peak_mb: float | None = None

    def run(self, target: Path) -> None:
        """Run once, with no writes pending, and remove the result."""
        sync()
        start = time.monotonic()
        process = subprocess.Popen(self.command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        peak = wait(process)
        self.seconds.append(time.monotonic() - start)
        if peak is not None:
            self.peak_mb = max(self.peak_mb or 0, peak)
        shutil.rmtree(target) if target.is_dir() else target.unlink()


def sync() -> None:
    if hasattr(os, "sync"):
        os.sync()


def wait(process: subprocess.Popen[bytes]) -> float | None:
    """Wait for the end; the peak of its memory in MB where the system reports it."""
    assert process.stderr is not None
    errors = process.stderr.read().decode(errors="replace")
    if hasattr(os, "wait4"):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        # kB on Linux, bytes on macOS.
        peak = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    else:
        process.wait()
        peak = None
    if process.returncode:
        raise SystemExit(f"{process.args} failed:\n{errors[-2000:]}")
    return peak


def measure(size: str, rounds: int, with_diffusers: bool, work: Path) -> list[Engine]:
    """Write the file, then let the engines take turns; the last of them reads the folder that a first run leaves."""
    source, folder, target = work / f"{size}.safetensors", work / "folder", work / "target"
    python = [sys.executable, "-c"]
    subprocess.run([*python, WRITE, *SIZES[size], str(source)], cwd=ROOT, check=True)
    subprocess.run([*python, TO_FOLDER, str(source), str(folder)], cwd=ROOT, check=True)
    if sys.platform == "linux":
        copy = ["sh", "-c", 'cp "$0" "$1" && sync "$1"', str(source), str(target)]
    else:
        copy = [*python, COPY, str(source), str(target)]
    engines = [
        Engine("cp and sync", copy),
        Engine("atelier, file to folder", [*python, TO_FOLDER, str(source), str(target)]),
        Engine("atelier, folder to file", [*python, TO_CHECKPOINT, str(folder), f"{target}.safetensors"]),
    ]
    if with_diffusers:
        engines.append(Engine("diffusers, file to folder", [*python, DIFFUSERS, str(source), str(target), str(folder)]))
    for _ in range(rounds):
        for engine in engines:
            engine.run(Path(f"{target}.safetensors") if "to file" in engine.name else target)
    return engines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--diffusers", action="store_true", help="also measure from_single_file and save_pretrained")
    parser.add_argument("--work", type=Path, default=None, help="a folder with room for three copies of the file")
    parser.add_argument("--json", action="store_true", help="end with one line for programs")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atelier-bench-", dir=args.work) as work:
        engines = measure(args.size, args.rounds, args.diffusers, Path(work))
    floor = statistics.median(engines[0].seconds)
    rows = []
    print(f"{'engine':28} {'median s':>9} {'min':>7} {'max':>7} {'x cp':>6} {'peak MB':>8}")
    for engine in engines:
        median = statistics.median(engine.seconds)
        # The ratio within each round, whose members ran under the same conditions.
        ratio = statistics.median(ours / copy for ours, copy in zip(engine.seconds, engines[0].seconds, strict=True))
        peak = None if engine.peak_mb is None else round(engine.peak_mb, 1)
        rows.append({"engine": engine.name, "seconds": round(median, 3), "ratio": round(ratio, 3), "peak_mb": peak})
        print(f"{engine.name:28} {median:9.2f} {min(engine.seconds):7.2f} {max(engine.seconds):7.2f} {ratio:6.2f} "
              f"{'' if peak is None else peak:>8}")
    print(f"{args.rounds} rounds; x cp is the median over the rounds of the ratio to cp ({floor:.2f} s)")
    if args.json:
        print(json.dumps({"device": "cpu", "size": args.size, "rows": rows}))


if __name__ == "__main__":
    main()
