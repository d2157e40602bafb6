"""TOML that people wrote or were sent: its limits are checked before parsing, which would take time and memory."""

from __future__ import annotations

import pytest

from atelier.errors import AtelierError
from atelier.toml_files import TOML, parse_toml


@pytest.mark.parametrize(("most", "said"), [
    (".".join("a" * TOML.depth) + " = 1", "a key of more than 16 parts"),
    ("a = " + "[" * TOML.depth + "]" * TOML.depth, "nested more than 16 deep"),
    ("a = 9223372036854775807", "beyond 64 bits")])
def test_one_more_than_the_most_is_refused(most: str, said: str) -> None:
    assert parse_toml(most, "a.toml")
    more = most.replace("a.a", "a.a.a", 1).replace("[", "[[", 1).replace("]", "]]", 1).replace("807", "808")
    with pytest.raises(AtelierError, match=rf"a\.toml(.|\n)*{said}"):
        parse_toml(more, "a.toml")
