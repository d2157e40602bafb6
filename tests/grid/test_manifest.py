"""A manifest from outside is checked before anything relies on it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atelier.errors import AtelierError
from atelier.grid.layout import Layout, Placement, arrange
from atelier.grid.manifest import Origin, describe, parse_manifest

LAYOUT = Layout(rows=1, columns=1, block=2, cell_width=10, cell_height=10)


def written() -> dict[str, Any]:
    places = arrange(LAYOUT, 1, 3, Placement.BOTTOM_LEFT)
    return describe(LAYOUT, places, [Origin("a cat", seed=7)], [Origin(source=f"{n}.png") for n in range(3)]).to_json()


def test_what_is_written_is_read() -> None:
    assert parse_manifest(json.dumps(written())) == json.loads(json.dumps(written()))


@pytest.mark.parametrize(("change", "said"), [
    ({"width": [1, 2]}, r"width is \[1, 2\]"), ({"seed": "x"}, "seed is 'x'"), ({"cells": 3}, "cells is 3"),
    ({"cells": [[1]]}, r"Cell 0 of the manifest is \[1\]"), ({"version": None}, "version is None"),
    ({"cells": [{"box": {"x": True}}]}, "Cell 0 of the manifest: x is True"), ({"height": 10**30}, "height is 1000"),
])
def test_the_entry_and_its_value_are_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(AtelierError, match=said):
        parse_manifest(json.dumps(written() | change))


@pytest.mark.parametrize("side", ["x", "y", "width", "height"])
def test_boxes_may_begin_at_the_edge_and_not_before_it(side: str) -> None:
    manifest = written()
    manifest["cells"][0]["box"][side] = 0
    assert parse_manifest(json.dumps(manifest)) == json.loads(json.dumps(manifest))
    manifest["cells"][0]["box"][side] = -1
    with pytest.raises(AtelierError, match=f"Cell 0 of the manifest: {side} is -1"):
        parse_manifest(json.dumps(manifest))


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, '{"seed": ' + "9" * 5000 + "}"])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(AtelierError, match="The manifest"):
        parse_manifest(text)
