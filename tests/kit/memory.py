"""Peak memory of a test run: of each worker, and of all its processes together; a run that exceeds a limit fails.

A worker is the process that runs tests: each of pytest-xdist's, or pytest's own without them. It reports its peak
when it ends. The controller samples the whole tree (workers, ComfyUI, Chromium, other children) meanwhile.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

WORKER_LIMIT = 3e9
"""Bytes for a process that runs tests. The file that needs most takes 2.3 GB alone, and the aim is 2.5; what earlier
files leave in the heap comes on top, and which worker runs which file differs from run to run."""
SHARE_LIMIT = 4e9
"""Bytes for a worker with all its children: two of them leave a machine of 8 GB something, four one of 16 GB."""
_INTERVAL = 4.0
"""Seconds between two samples: counting shared pages once costs the kernel a walk through all of them."""
_NOTICEABLE = 20e6


def peak_memory() -> int:
    """Bytes that this process has occupied at most since it started."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    if sys.platform == "linux":  # where `ru_maxrss` begins with what the process that started this one had occupied
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def tree_memory(root: psutil.Process) -> Counter[str]:
    """Bytes that a process and its descendants occupy now, by what they are.

    Pages that several processes share count once where the system tells how many share them (Linux).
    """
    parts: Counter[str] = Counter()
    with suppress(psutil.Error):
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.Error):
                parts[_kind(process)] += _occupied(process)
    return parts


def _kind(process: psutil.Process) -> str:
    """A process's name; of an interpreter, its number and the script it was given, since each is another thing."""
    name = process.name()
    if not name.startswith("python"):
        return name
    scripts = [Path(word).name for word in process.cmdline()[1:] if word.endswith(".py")]
    return " ".join([str(process.pid), *scripts[-1:]])


def _occupied(process: psutil.Process) -> int:
    if sys.platform == "linux":
        return process.memory_full_info().pss
    return process.memory_info().rss


@dataclass
class Peak:
    """The most memory seen, and the test that was running then."""

    bytes: int = 0
    test: str = "start"
    parts: Mapping[str, int] = field(default_factory=dict)
    """What it was made of, where that is known."""

    def update(self, amount: int, test: str, parts: Mapping[str, int] | None = None) -> None:
        """Take an observation; small growth is not blamed on the test that happens to run."""
        if amount > self.bytes + _NOTICEABLE:
            self.test, self.parts = test, parts or {}
        self.bytes = max(self.bytes, amount)

    def __str__(self) -> str:
        return f"{self.bytes / 1e9:.2f} GB ({self.test})"


@dataclass(eq=False)  # pluggy keeps plugins in sets
class MemoryWatch:
    """A pytest plugin: register one in each process of the run."""

    config: pytest.Config
    workers: dict[str, Peak] = field(default_factory=dict)
    own: Peak = field(default_factory=Peak)
    tree: Peak = field(default_factory=Peak)
    running: set[str] = field(default_factory=set)
    excess: list[str] = field(default_factory=list)
    _done: threading.Event = field(default_factory=threading.Event)

    @property
    def in_worker(self) -> bool:
        """True in a process of pytest-xdist's that runs tests for another."""
        return hasattr(self.config, "workerinput")

    def pytest_sessionstart(self) -> None:
        """Start sampling, in the process that started the run."""
        if not self.in_worker:
            threading.Thread(target=self._sample, daemon=True).start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running.add(nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.running.discard(nodeid)
        self.own.update(peak_memory(), nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Collect what a worker reports; one that was killed has nothing to say."""
        if "peak_memory" in (getattr(node, "workeroutput", None) or {}):
            self.workers[node.gateway.id] = Peak(*node.workeroutput["peak_memory"])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Report to the controller, or fail the run there."""
        if self.in_worker:
            self.config.workeroutput["peak_memory"] = (peak_memory(), self.own.test)  # type: ignore[attr-defined]
            return
        self._done.set()
        if not self.workers and not self.config.getoption("numprocesses", None):
            self.workers["pytest"] = Peak(peak_memory(), self.own.test)
        limit = SHARE_LIMIT * max(1, len(self.workers))
        self.excess = [f"{name} used {peak}, more than {WORKER_LIMIT / 1e9} GB"
                       for name, peak in self.workers.items() if peak.bytes > WORKER_LIMIT]
        if self.tree.bytes > limit:
            self.excess.append(f"all processes used {self.tree}, more than {limit / 1e9} GB")
        if self.excess and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the peaks, and what exceeds its limit."""
        for name, peak in sorted(self.workers.items()):
            terminalreporter.write_line(f"peak memory of {name}: {peak}")
        terminalreporter.write_line(f"peak memory of all processes: {self.tree}")
        shares = sorted(self.tree.parts.items(), key=lambda part: -part[1])
        terminalreporter.write_line(f"  in it: {', '.join(f'{size / 1e9:.2f} {name}' for name, size in shares)}")
        for line in self.excess:
            terminalreporter.write_line(f"FAILED memory: {line}", red=True)

    def _sample(self) -> None:
        root = psutil.Process()
        while not self._done.wait(_INTERVAL):
            parts = tree_memory(root)
            self.tree.update(parts.total(), ", ".join(sorted(self.running.copy())) or "between tests", parts)
