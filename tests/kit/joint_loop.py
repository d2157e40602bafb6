"""Training loops on small parts in several processes: what the launched script does, and how tests start it.

    python joint_loop.py cases.json 2

The script has so many processes go through the cases of the file, each a loop of all together, and writes how each
ended. They are forked, so that PyTorch is imported once.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ENDS = 180
"""Seconds after which processes that wait for each other are ended; none of the tests should come near."""


@dataclass(kw_only=True)
class Case:
    """One loop. Steps are those after which a process does something."""

    folder: str
    options: dict[str, Any] = field(default_factory=dict)
    """Of the request; its batch is that of all processes."""
    at_once: int = 1
    pictures: int = 8
    interrupt: dict[str, int] = field(default_factory=dict)
    """By rank: is interrupted."""
    stop: dict[str, int] = field(default_factory=dict)
    """By rank: the user wants what was learnt."""
    fail: dict[str, int] = field(default_factory=dict)
    """By rank: cannot load a batch any more."""
    die: dict[str, int] = field(default_factory=dict)
    """By rank: is killed."""
    freeze: dict[str, int] = field(default_factory=dict)
    """By rank: stands still, as on a machine that vanished. The others wait but a moment for a sign of life."""


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_cases(cases: Sequence[Case], count: int, folder: Path) -> list[int]:
    """Run the cases in `count` processes; their exit codes."""
    listed = folder / f"cases-{count}.json"
    listed.write_text(json.dumps([asdict(case) for case in cases]), encoding="utf-8")
    done = subprocess.run([sys.executable, __file__, str(listed), str(count)], stdout=subprocess.PIPE, check=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=(count + 1) * ENDS)
    return json.loads(done.stdout.splitlines()[-1])


def outcome(case: Case, rank: int) -> dict[str, Any]:
    """How the case ended in a process: `status` or `error`, `losses`, `validation`, `weights` (a digest), and
    `drawn`: the step of the last sample pictures and a digest of the weights that they were drawn with."""
    return json.loads((Path(case.folder) / f"process-{rank}.json").read_text(encoding="utf-8"))


def _main(listed: Path, count: int) -> list[int | None]:
    """The exit codes of the processes."""
    import kit.training_loop  # noqa: F401 # with all that the forked ones need

    cases = [Case(**case) for case in json.loads(listed.read_text(encoding="utf-8"))]
    fork = multiprocessing.get_context("fork")
    meeting = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [fork.Process(target=_join, args=(cases, meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)}))
               for rank in range(count)]
    for process in started:
        process.start()
    started[0].join(ENDS)
    for process in started[1:]:
        if started[0].exitcode == 0:
            process.join(ENDS)
    for process in started:  # others than the first may stand still
        process.kill()
        process.join()
    return [process.exitcode for process in started]


def _join(cases: Sequence[Case], meeting: dict[str, str]) -> None:
    from atelier.train import process_watch
    from atelier.train.process_group import join_processes

    os.environ.update(meeting)
    if any(case.freeze for case in cases):
        process_watch.INTERVAL, process_watch.SILENCE = 0.2, 5.0
    with join_processes("cpu") as (processes, _):
        for case in cases:
            _run(case, processes)


def _run(case: Case, processes: Any) -> None:
    from kit.training import MemorySet, denoiser
    from kit.training_loop import request

    from atelier.progress import Interrupted, Progress
    from atelier.train.loop import Loop
    from atelier.train.run_folder import RunFolder
    from atelier.train.trainer import Trainer

    rank = str(processes.rank)

    class Watched(Progress):
        step = 0

        def measure(self, values: Any) -> None:
            self.step = int(values["step"])
            if self.step == case.die.get(rank):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.step == case.freeze.get(rank):
                os.kill(os.getpid(), signal.SIGSTOP)

        def check(self) -> None:
            if self.step == case.interrupt.get(rank):
                raise Interrupted

        def stop_requested(self) -> bool:
            return self.step == case.stop.get(rank)

    folder, progress = Path(case.folder), Watched()
    trainer = Trainer(denoiser(), MemorySet.of(case.pictures), request(case.options), processes,  # type: ignore
                      at_once=case.at_once)
    load = trainer.loader.__call__

    def loader(batch: Any) -> Any:
        if progress.step == case.fail.get(rank):
            raise ValueError("the disk is gone")
        return load(batch)

    trainer.loader = loader  # type: ignore
    found: dict[str, Any] = {}

    def draw(step: int, weights: Any = None) -> None:
        found["drawn"] = (step, _digest(weights or trainer.adapters.masters))

    loop = Loop(trainer, RunFolder(folder), progress, metadata=lambda step: {"step": str(step)}, draw=draw)
    try:
        found["status"] = loop.run().status
    except Exception as error:  # noqa: BLE001 # how it ended is what tests look at
        found["error"] = type(error).__name__
    found |= {"losses": loop.state.history.losses, "validation": loop.state.history.validation,
              "weights": _digest(trainer.adapters.masters)}
    (folder / f"process-{rank}.json").write_text(json.dumps(found), encoding="utf-8")


def _digest(tensors: Any) -> str:
    return hashlib.sha256(b"".join(tensor.detach().float().numpy().tobytes() for tensor in tensors)).hexdigest()


if __name__ == "__main__":
    tests = Path(__file__).resolve().parent.parent
    sys.path[0] = str(tests)
    sys.path.append(str(tests.parent))
    print(json.dumps(_main(Path(sys.argv[1]), int(sys.argv[2]))))
