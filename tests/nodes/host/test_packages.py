"""A node that misses a package says what to install; other errors stay Python's own."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


def called(pack: ModuleType, missing: str | None) -> Any:
    """Execute a node that imports a module which is not there."""
    class Node:
        @classmethod
        def execute(cls, given: int) -> int:
            if missing is not None:
                raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
            return given

    return pack_module(pack, "nodes.host.packages").explain_missing(Node).execute(3)


@pytest.mark.parametrize("missing", ["peft", "peft.tuners"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(pack: ModuleType, missing: str) -> None:
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError,
                       match=r"package 'peft' is not installed.* -m pip install -r .*requirements\.txt"):
        called(pack, missing)


@pytest.mark.parametrize("missing", ["somebody_elses", ""])
def test_other_missing_modules_are_told_as_they_are(pack: ModuleType, missing: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=f"No module named '{missing}'"):
        called(pack, missing)


def test_a_node_whose_packages_are_there_gives_its_result(pack: ModuleType) -> None:
    assert called(pack, None) == 3


@pytest.mark.parametrize("missing", [[], ["peft"], ["peft", "psutil"]])
def test_the_hosts_log_says_at_its_start_what_is_missing(pack: ModuleType, monkeypatch: pytest.MonkeyPatch,
                                                         caplog: pytest.LogCaptureFixture, missing: list[str]) -> None:
    nodes = pack_module(pack, "nodes")
    monkeypatch.setattr(nodes.packages, "missing_packages", lambda: missing)
    asyncio.run(nodes.AtelierExtension().on_load())
    said = [message for message in caplog.messages if "does not find" in message]
    assert len(said) == bool(missing)
    assert all(f"Atelier needs {' and '.join(missing)}, which" in message and "pip install" in message
               for message in said)
