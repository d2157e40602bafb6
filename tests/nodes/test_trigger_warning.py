"""The trainer's warning about a common trigger word."""

from __future__ import annotations

import logging
from types import ModuleType

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


def test_a_common_word_is_reported_and_logged(pack: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    warning = pack_module(pack, "nodes.trigger_warning").trigger_warning
    with caplog.at_level(logging.WARNING, logger="atelier"):
        assert warning("ohwx") == warning("") == ""
        assert not caplog.records
        text = warning("dog")
    assert "'dog' is a common word" in text
    assert [record.getMessage() for record in caplog.records] == [text]
