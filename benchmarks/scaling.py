"""Samples per second of training in one process and in several, and the bytes that a step sends.

    python benchmarks/scaling.py [--processes 1 2] [--steps 30] [--batch 2] [--size 256]

Every process runs on the processor with one thread, on a random Stable Diffusion 1.x of small widths; what is timed are
optimiser steps after a few others. Each process takes `--batch` pictures a step, so that twice the processes see twice
the pictures in a step.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WARMUP = 3


def measure(processes: int, options: argparse.Namespace) -> dict[str, Any]:
    """What the first of so many processes has measured."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
                       "MASTER_PORT": str(port)}
        command = [sys.executable, __file__, "--worker", str(result), "--steps", str(options.steps), "--batch",
                   str(options.batch), "--size", str(options.size)]
        started = [subprocess.Popen(command, env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)})
                   for rank in range(processes)]
        codes = [process.wait() for process in started]
        if any(codes):
            raise SystemExit(f"A process ended with {codes}.")
        return json.loads(result.read_text(encoding="utf-8"))


def work(options: argparse.Namespace) -> None:
    """One process."""
    sys.path += [str(ROOT), str(ROOT / "tests")]
    import torch
    from kit.training import MemorySet, denoiser
    from kit.training_loop import request

    from atelier.train.process_group import join_processes
    from atelier.train.trainer import Trainer

    torch.set_num_threads(1)
    with join_processes("cpu") as (processes, _):
        wanted = request(dict(rank=16, batch_size=options.batch * processes.count, monitor="off", patience=0), steps=1)
        trainer = Trainer(denoiser(), MemorySet.of(64, options.size // 8), wanted,  # type: ignore[arg-type]
                          processes, at_once=options.batch)
        for step in range(WARMUP):
            trainer.train_step(step, 1.0)
        began = time.perf_counter()
        for step in range(WARMUP, WARMUP + options.steps):
            trainer.train_step(step, 1.0)
        seconds = time.perf_counter() - began
        if processes.first:
            weights = trainer.adapters.masters
            options.worker.write_text(json.dumps({
                "samples per second": options.batch * processes.count * options.steps / seconds,
                "bytes summed a step": 4 * (sum(weight.numel() for weight in weights) + len(weights) + 1)}),
                encoding="utf-8")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    base = 0.0
    for processes in options.processes:
        found = measure(processes, options)
        rate = found["samples per second"]
        base = base or rate
        print(f"{processes} processes: {rate:.2f} samples/s ({rate / base:.2f} ×), "
              f"{found['bytes summed a step'] / 1e6:.2f} MB summed a step", flush=True)


if __name__ == "__main__":
    main()
