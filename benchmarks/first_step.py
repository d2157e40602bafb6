"""How soon training begins: from the request to the first step and to its end, on a warm cache, and reading the UNet.

    python benchmarks/first_step.py [--size smallest|full] [--dtype bf16] [--rounds 3] [--json]

Pictures and captions are in the cache; the checkpoint is not in the system's: its pages are dropped before each
measurement. The floor is a plain read of the bytes that belong to the UNet. Every measurement is a process of its own,
without its imports, which a running host has done already. Engines take turns. Linux only, where pages can be dropped.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests")]

SHAPES = {"smallest": "tiny", "full": "full"}
FLOOR, OURS, DONE = "reading the UNet", "request to first step", "request to its end"


def forget(file: Path) -> None:
    """Drop a file's pages from the system's cache, so that it is read from the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_unet(checkpoint: Path, job: dict[str, Any]) -> float:
    """Seconds to read every byte of the UNet's tensors."""
    from atelier.checkpoint.header import read_header

    spans = [(tensor.begin, tensor.end) for name, tensor in read_header(checkpoint).tensors.items()
             if name.startswith("model.diffusion_model.")]
    forget(checkpoint)
    began = time.perf_counter()
    with checkpoint.open("rb", buffering=0) as file:
        for start, end in spans:
            file.seek(start)
            while start < end and (block := file.read(min(end - start, 2**24))):
                start += len(block)
    return time.perf_counter() - began


class Begun(Exception):
    """Ends the run: the step that was waited for is about to begin."""


def to_first_step(checkpoint: Path, job: dict[str, Any]) -> float:
    """Seconds from asking for a LoRA to its first training step. The first call of a job fills the cache."""
    return to_step(1, checkpoint, job)


def to_end_of_first_step(checkpoint: Path, job: dict[str, Any]) -> float:
    """The same with the first step, which rearranges weights on a processor and chooses kernels on a card."""
    return to_step(2, checkpoint, job)


def to_step(number: int, checkpoint: Path, job: dict[str, Any]) -> float:
    """Seconds from asking for a LoRA until its step of that number, from 1, is about to begin."""
    import diffusers.models.unets.unet_2d_condition  # noqa: F401
    import peft  # noqa: F401 - what the host has imported by the second run
    import transformers  # noqa: F401

    from atelier.dataset.folder import FolderOptions, read_folder
    from atelier.dataset.types import Resolution
    from atelier.models.open import open_model
    from atelier.progress import Progress
    from atelier.train.devices import RunPaths
    from atelier.train.request.presets import build_request
    from atelier.train.run import train

    class Watch(Progress):
        training, begun = False, 0

        def phase(self, name: str, total: int) -> None:
            self.training = name == "training"

        def check(self) -> None:
            self.begun += self.training
            if self.begun == number:
                raise Begun

    work = Path(job["work"])
    request = build_request(None, dict(monitor="off", patience=0, precision=job["dtype"], rank=16, steps=10))
    paths = RunPaths(work / "loras", work / f"runs {os.getpid()}", work / "cache")
    forget(checkpoint)
    began = time.perf_counter()
    try:
        train("bench", open_model(checkpoint),
              read_folder(work / "pictures", FolderOptions(resolution=Resolution(job["pixels"]))),
              request, paths, Watch())
    except Begun:
        return time.perf_counter() - began
    raise SystemExit("There was no first step.")


ENGINES = {FLOOR: read_unet, OURS: to_first_step, DONE: to_end_of_first_step}


def measured(engine: str, job: dict[str, Any]) -> float:
    """Seconds of one engine in a process of its own."""
    run = subprocess.run([sys.executable, __file__, "--job", json.dumps({**job, "engine": engine})],
                         capture_output=True, text=True, encoding="utf-8", cwd=ROOT)
    if run.returncode:
        raise SystemExit(f"{engine} failed:\n{run.stderr[-3000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SHAPES, default="full")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="end with one line for programs")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        job = json.loads(args.job)
        print(json.dumps(ENGINES[job["engine"]](Path(job["checkpoint"]), job)))
        return
    from kit.checkpoints import write_sd1
    from kit.pictures import write_pictures

    pixels = 64 if args.size == "smallest" else 128
    with tempfile.TemporaryDirectory(prefix="atelier-bench-") as folder:
        checkpoint = write_sd1(Path(folder) / "model.safetensors", SHAPES[args.size])
        write_pictures(Path(folder) / "pictures", [(pixels, pixels)] * 8)
        job = {"checkpoint": str(checkpoint), "work": folder, "dtype": args.dtype, "pixels": pixels}
        measured(OURS, job)  # fills the cache of pictures and captions
        seconds = {engine: [] for engine in ENGINES}
        for number in range(args.rounds):
            for engine in ENGINES:
                seconds[engine].append(measured(engine, job))
                print(f"round {number + 1}: {engine} {seconds[engine][-1]:.2f} s", file=sys.stderr, flush=True)
    ratio, to_end = (statistics.median(one / floor for one, floor in zip(seconds[engine], seconds[FLOOR], strict=True))
                     for engine in (OURS, DONE))
    print(f"SD1.x {args.size}, {args.dtype}, {args.rounds} rounds, medians")
    for engine, times in seconds.items():
        print(f"{engine:24} {statistics.median(times):7.2f} s")
    print(f"{'ratio':24} {ratio:7.2f}, to the end of the step {to_end:.2f}")
    if args.json:
        print(json.dumps({"rows": [{"engine": engine, "seconds": round(statistics.median(times), 3)}
                                   for engine, times in seconds.items()], "ratio": round(ratio, 3),
                          "ratio_to_end": round(to_end, 3)}))


if __name__ == "__main__":
    main()
