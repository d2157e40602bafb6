"""A run of several processes: its batches, the encoding shared out, and what all must have alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..errors import AtelierError
from ..temp_paths import temp_path
from .identity import RunIdentity
from .processes import Processes
from .request.request import TrainRequest
from .run_folder import RunFolder
from .state_file import read_processes


def with_batches_of(request: TrainRequest, processes: int) -> TrainRequest:
    """The request that one process would train as so many train this one: its batches are theirs together."""
    size = request.optimizer.batch_size * processes
    return replace(request, optimizer=replace(request.optimizer, batch_size=size))


def begun_with(request: TrainRequest, processes: Processes, runs: Path,
               identity: Callable[[TrainRequest], RunIdentity]) -> int:
    """With how many processes the run of `request` began that is to go on; this many where there is none to go on with.

    A run goes on with another number of processes in the batches that it began with, unless they are too small to give
    each process a picture. Where the present number of processes has a run of its own, that one counts.

    Args:
        request: As it stands in the file: its batch is that of one process.
        processes: The present ones.
        runs: Folder of all runs.
        identity: Of a request.
    """
    count, length = processes.count, identity(request).length
    others = {_began(folder) for path in runs.glob(f"*-{length}") if (folder := RunFolder(path)).state.exists()}
    others = {other for other in others if other != count and other * request.optimizer.batch_size >= count}
    if not others or _folder(request, count, runs, identity).path.exists():
        return count
    going_on = [(folder.state.stat().st_mtime_ns, other) for other in others
                if _began(folder := _folder(request, other, runs, identity)) == other]
    return max(going_on)[1] if going_on else count


def _folder(request: TrainRequest, processes: int, runs: Path, identity: Callable[[TrainRequest], RunIdentity]
            ) -> RunFolder:
    return RunFolder(runs / str(identity(with_batches_of(request, processes))))


def _began(folder: RunFolder) -> int:
    """How many processes began an unfinished run; 0 where there is none, or its state is damaged."""
    if folder.report.exists() or not folder.state.exists():
        return 0
    try:
        return read_processes(folder.state)
    except AtelierError:
        return 0


def check_alike(processes: Processes, identity: RunIdentity) -> None:
    """Refuse to train where the processes would not train the same.

    Raises:
        AtelierError: another process has another model, other pictures, another configuration or precision.
    """
    found = processes.exchange(str(identity))
    others = [rank for rank, theirs in enumerate(found) if theirs != found[0]]
    if others:
        raise AtelierError(f"The processes {', '.join(map(str, others))} would train something else than process 0.",
                           "Give all machines the same configuration, model and pictures, and cards that compute in "
                           "the same precision (or choose precision fp32).")


def sharers(folder: Path, processes: Processes) -> tuple[int, int]:
    """(number, count) of this process among those that see the same `folder`, which is made where it is missing.

    Processes of one machine do; those of several do where the folder lies on a disk that they share.

    Raises:
        AtelierError: as `Processes.together`.
    """
    if processes.count == 1:
        return 0, 1
    folder.mkdir(parents=True, exist_ok=True)
    mark = temp_path(folder / "sharers")
    with processes.together():
        mark.touch()
    try:
        names = processes.exchange(mark.name)
        seen = next(rank for rank, name in enumerate(names) if (folder / name).exists())
        groups = processes.exchange(seen)
    finally:
        mark.unlink(missing_ok=True)
    same = [rank for rank, group in enumerate(groups) if group == seen]
    return same.index(processes.rank), len(same)

