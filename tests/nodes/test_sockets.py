"""Sockets: a name goes into lists of names, as the host's own loaders have them."""

from __future__ import annotations

from types import ModuleType

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


def test_a_name_fits_a_list_a_text_and_nothing_else(pack: ModuleType) -> None:
    """The host refuses a link where `!=` of the two types holds."""
    kind = pack_module(pack, "nodes.sockets").Choice.io_type
    for taken in ([], ["a.safetensors", "b.safetensors"], str(kind)):
        assert not kind != taken  # noqa: SIM202
    for refused in ("IMAGE", "MODEL", "INT", ("a", "b"), None):
        assert kind != refused
    assert kind == str(kind) and hash(kind) == hash(str(kind))
