"""The slowest kernels of Atelier's training step: of a graphics card, or without one the operations of the processor.

    python benchmarks/profile_step.py [--family sd1|sdxl] [--size smallest|small|full] [--pixels 512] [--batch 1]
                                      [--dtype bf16] [--steps 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests")]

WARMUP = 4
ROWS = 10


class ProfiledSteps:
    """Called after every step; profiles those after the warm-up and ends the run when it has them."""

    def __init__(self, steps: int) -> None:
        from torch.profiler import ProfilerActivity, profile

        from benchmarks._train_engines import on_card

        self.steps, self.seen = steps, 0
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card() else [])]
        self.profiler = profile(activities=kinds, acc_events=True)

    def __call__(self) -> None:
        from benchmarks._train_engines import Done, synchronise

        self.seen += 1
        if self.seen == WARMUP:
            synchronise()
            self.profiler.start()
        if self.seen == WARMUP + self.steps:
            synchronise()
            self.profiler.stop()
            raise Done

    def rows(self) -> list[dict[str, Any]]:
        """Name, share of the time, and per step: milliseconds and calls; the slowest first."""
        from torch.autograd import DeviceType

        from benchmarks._train_engines import on_card

        kind = DeviceType.CUDA if on_card() else DeviceType.CPU
        found = [(event.self_device_time_total if on_card() else event.self_cpu_time_total, event.count, event.key)
                 for event in self.profiler.key_averages() if event.device_type == kind]
        total = sum(time for time, _, _ in found) or 1
        return [{"name": name, "share": time / total, "ms": time / 1000 / self.steps, "calls": count / self.steps}
                for time, count, name in sorted(found, reverse=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=("sd1", "sdxl"), default="sd1")
    parser.add_argument("--size", choices=("smallest", "small", "full"), default="small")
    parser.add_argument("--pixels", type=int, help="side of the pictures (default: by size)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="end with one line for programs")
    args = parser.parse_args()

    from kit.checkpoints import WRITERS
    from kit.pictures import write_pictures

    from benchmarks._train_engines import Done, Job, atelier
    from benchmarks.train import PIXELS, SHAPES, device_name

    pixels = args.pixels or PIXELS[args.size]
    with tempfile.TemporaryDirectory(prefix="atelier-profile-", ignore_cleanup_errors=True) as folder:
        checkpoint = WRITERS[args.family](Path(folder) / "model.safetensors", SHAPES[args.size])
        pictures = write_pictures(Path(folder) / "pictures", [(pixels, pixels)] * max(2, args.batch))
        steps = ProfiledSteps(args.steps)
        with suppress(Done):
            atelier(Job("atelier-eager", str(checkpoint), str(pictures), f"{folder}/cache", pixels, args.batch,
                        args.dtype, WARMUP, args.steps), steps)
        rows = steps.rows()
    calls, milliseconds = sum(row["calls"] for row in rows), sum(row["ms"] for row in rows)
    print(f"{args.family} {args.size}, {pixels} px, batch {args.batch}, {args.dtype}, {device_name()}: "
          f"{calls:.0f} calls and {milliseconds:.1f} ms a step")
    for row in rows[:ROWS]:
        print(f"{row['share']:6.1%} {row['ms']:9.3f} ms {row['calls']:7.0f} calls  {row['name'][:100]}")
    if args.json:
        print(json.dumps({"calls": calls, "ms": milliseconds, "rows": rows[:ROWS]}))


if __name__ == "__main__":
    main()
