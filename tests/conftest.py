"""Shared by all tests: module paths, a host to test against, limits for a run, and isolation of global state."""

from __future__ import annotations

import gc
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# Last: the pack's `nodes` and `tests` must not shadow other modules of those names.
sys.path += [str(Path(__file__).parent), str(ROOT)]

if TYPE_CHECKING:
    from types import ModuleType

    from kit.host import Host

# No test may contact a model hub or depend on this machine's cache.
os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
# Nor write into the home folder, which may be shared or read-only. Workers inherit the variable.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _kept = tempfile.TemporaryDirectory(prefix="atelier-tests-", ignore_cleanup_errors=True)
    os.environ["HF_HOME"] = _kept.name
os.environ.setdefault("MPLBACKEND", "Agg")
# No proxy for servers on this machine, here and in processes that tests start.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

# The same examples in every run, without deadlines, which fail on a busy machine.
# `pytest --hypothesis-profile=default` draws others.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    """Watch the run's memory, and every progress in it."""
    from kit import progress_rules
    from kit.memory import MemoryWatch

    config.pluginmanager.register(MemoryWatch(config), "memory")
    progress_rules.watch()


def pytest_xdist_auto_num_workers() -> int:
    """One worker for each core, at most four, and no more than fit into the memory with what they start."""
    import psutil
    from kit.memory import SHARE_LIMIT

    return max(1, min(4, psutil.cpu_count() or 1, int(psutil.virtual_memory().total / SHARE_LIMIT)))


def _missing() -> dict[str, str]:
    """What this machine lacks and how to get it, by the marker of the tests that need it."""
    from tools import chromium, comfyui

    missing = {}
    if comfyui.find() is None:
        why = comfyui.NO_CLONE.read_text(encoding="utf-8") if comfyui.NO_CLONE.is_file() else ""
        missing["host"] = (f"ComfyUI: there is none at {', '.join(map(str, comfyui.places()))}"
                           f"{f', and cloning it failed ({why})' if why else ''}. "
                           "Set COMFYUI_PATH to the folder of its main.py to run them.")
    if chromium.find() is None:
        missing["browser"] = f"Chromium. {chromium.HELP}"
    if shutil.which("node") is None:
        missing["node"] = "Node.js 18 or newer, for the editor's scripts. Install it to run them."
    return missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need what this machine lacks; put files with slow tests first, so that workers end together.

    Of these, hosts and browsers come last: those that were started stay, beside whatever large model runs after them.
    A run without workers keeps the order of its files.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (item.path not in slow, item.path in slow and "e2e" in item.path.parts))
    for marker, need in _missing().items():
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"they need {need}"))


def pytest_collection_finish() -> None:
    """Keep what is there from garbage collection: the modules of PyTorch, diffusers and transformers are millions of
    objects, and searching them took half a second at the end of every training, sample and test that collects.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Print on the last lines how many tests were skipped, and why."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reporter.stats.get("skipped", ()))
        for reason, count in reasons.items():
            reporter.write_line(f"{count} tests were skipped because {reason}", yellow=True)


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    """Reset global state around each test."""
    environment, folder = dict(os.environ), Path.cwd()
    random.seed(0)
    torch = sys.modules.get("torch")
    dtype, threads = (torch.get_default_dtype(), torch.get_num_threads()) if torch else (None, None)
    if torch:
        torch.manual_seed(0)
    yield
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if torch:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The pack as the host loads it, in this process, from a folder called ComfyUI-Atelier. Mark such tests `host`."""
    from kit.pack import load_pack

    return load_pack(tmp_path_factory.mktemp("in process"))


_shared_host: list[Host] = []


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A running ComfyUI with the pack in it, shared by all tests. Mark such tests `host`.

    Its environment holds keys; at the end, no trace of them may be left.
    """
    from kit.canary import watched
    from kit.host import Host

    # A space and letters beyond ASCII, as in many people's folders.
    with watched(Host(tmp_path_factory.mktemp("höst base"))) as running:
        _shared_host.append(running)
        yield running
        _shared_host.clear()


@pytest.fixture(autouse=True, scope="module")
def _free_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each file, give back what it left in the heap and have the shared host unload the models it used.

    Both would stay to the end, beside whatever large model runs after them.
    """
    before = request.session.testsfailed
    yield
    used = any("host" in getattr(item, "fixturenames", ()) for item in request.session.items
               if item.path == request.path)
    if used and _shared_host and _shared_host[0].running and request.session.testsfailed == before:
        _shared_host[0].free()
    if "torch" in sys.modules:
        import torch

        from atelier.device_memory import free_cache

        free_cache(torch.device("cpu"))
    gc.freeze()
