"""Making a run longer: it resumes from the state of a shorter one of the same lineage, where the schedule allows it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import AtelierError
from ..files import atomic_file
from .identity import RunIdentity
from .request.recipe import OptimizerConfig
from .run_folder import RunFolder
from .state_file import read_progress

log = logging.getLogger("atelier")


def extend_shorter_run(runs: Path, identity: RunIdentity, total: int, optimizer: OptimizerConfig) -> str:
    """Copy into a run's folder the state of the longest shorter run of its lineage, unless it has one of its own.

    A run that resumes from it ends with the same weights as one that is trained at once: noise, timesteps and order of
    pictures depend on (seed, step) alone. Only a learning rate that depends on the run's length forbids it.

    Args:
        runs: Folder of all runs.
        identity: Of the run that begins.
        total: Optimiser steps that it is to do.
        optimizer: Its schedule and warm-up decide whether a shorter run can be continued.

    Returns:
        A sentence for a person: what the run goes on from, or why it cannot; empty where there is no shorter run.
    """
    own = RunFolder(runs / str(identity))
    if own.state.exists():
        return ""
    shorter = max(_shorter_runs(runs, identity, total), default=None, key=lambda found: found[0])
    if shorter is None:
        return ""
    step, planned, source = shorter
    if optimizer.schedule != "constant":
        return (f"A run of {step} steps with the same settings is there, but its learning rate was to reach 0 at step "
                f"{planned} (schedule {optimizer.schedule!r}), so this one started from the beginning. A run with the "
                "schedule 'constant' can be made longer.")
    if optimizer.warmup_steps > planned:
        return (f"A run of {step} steps with the same settings is there, but its warm-up was cut to {planned} steps, "
                "so this one started from the beginning.")
    for path, copy in ((source.best, own.best), (source.state, own.state)):  # the state last: it makes the copy count
        if path.exists():
            with atomic_file(copy) as part:
                shutil.copyfile(path, part)
    return f"Training went on from step {step} of a shorter run with the same settings."


def _shorter_runs(runs: Path, identity: RunIdentity, total: int) -> Iterator[tuple[int, int, RunFolder]]:
    """(steps done, steps planned, folder) of the runs of the lineage that have done no more than `total` steps."""
    for path in runs.glob(f"{identity.lineage}-*"):
        folder = RunFolder(path)
        if path.name == str(identity) or not folder.state.exists():
            continue
        try:
            step, planned = read_progress(folder.state)
        except AtelierError as error:
            log.warning("%s", error)
            continue
        if 0 < step <= total:
            yield step, planned, folder
