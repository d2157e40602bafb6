"""Shared by these tests: a small random model, written once and linked into each host, and a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kit.checkpoints import write_sd1
from kit.host import Host
from kit.sd3_checkpoint import write_sd3

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def put_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Put a Stable Diffusion 1.x checkpoint into a host's folder, under its own or another name; return the name."""
    made = write_sd1(tmp_path_factory.mktemp("checkpoint") / "small.safetensors")

    def put(host: Host, name: str = made.name) -> str:
        return _put(host, made, name)
    return put


@pytest.fixture(scope="session")
def put_flow_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Host], str]:
    """The same for an SD 3 checkpoint, which knows flow matching and which core alone can load."""
    made = write_sd3(tmp_path_factory.mktemp("checkpoint") / "small flow.safetensors")
    return lambda host: _put(host, made, made.name)


@pytest.fixture(scope="session")
def checkpoint(host: Host, put_checkpoint: Callable[..., str]) -> str:
    """The checkpoint's name in the shared host."""
    return put_checkpoint(host)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser. Mark such tests `browser`.

    Not for the session: Playwright runs an event loop in this thread, so that no other one can start.
    """
    from kit.editor import browser

    with browser() as running:
        yield running


def _put(host: Host, made: Path, name: str) -> str:
    place = host.base / "models" / "checkpoints" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        _link(made, place)
    return place.name


def _link(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)
