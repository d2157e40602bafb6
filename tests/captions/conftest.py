"""A server that sees, for the tests of captions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.fake_vision import FakeVision


@pytest.fixture(scope="module")
def server() -> Iterator[FakeVision]:
    with FakeVision() as fake:
        yield fake


@pytest.fixture
def fake(server: FakeVision) -> FakeVision:
    return server.forget()
