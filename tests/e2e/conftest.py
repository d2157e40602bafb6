"""A small random model for the hosts of these tests: made once, linked into each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.checkpoints import write_sd1
from kit.host import Host


@pytest.fixture(scope="session")
def put_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Put a Stable Diffusion 1.x checkpoint into a host's folder, under its own name or another; returns the name."""
    made = write_sd1(tmp_path_factory.mktemp("checkpoint") / "small.safetensors")

    def put(host: Host, name: str = made.name) -> str:
        place = host.base / "models" / "checkpoints" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            _link(made, place)
        return place.name
    return put


@pytest.fixture(scope="session")
def checkpoint(host: Host, put_checkpoint: Callable[..., str]) -> str:
    """The checkpoint's name in the shared host."""
    return put_checkpoint(host)


def _link(source: Path, place: Path) -> None:
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)
