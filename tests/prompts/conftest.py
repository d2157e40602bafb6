"""A language model's server for the tests of prompts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.fake_llm import FakeLlm


@pytest.fixture(scope="module")
def server() -> Iterator[FakeLlm]:
    with FakeLlm() as fake:
        yield fake


@pytest.fixture
def fake(server: FakeLlm) -> FakeLlm:
    return server.forget()
