"""TOML: its limits are checked before parsing, which would take time and memory; values are read as written."""

from __future__ import annotations

import pytest

from atelier.errors import AtelierError
from atelier.toml_files import TOML, parse_toml, toml_value


@pytest.mark.parametrize(("most", "said"), [
    (".".join("a" * TOML.depth) + " = 1", "a key of more than 16 parts"),
    ("a = " + "[" * TOML.depth + "]" * TOML.depth, "nested more than 16 deep"),
    ("a = 9223372036854775807", "beyond 64 bits")])
def test_one_more_than_the_most_is_refused(most: str, said: str) -> None:
    assert parse_toml(most, "a.toml")
    more = most.replace("a.a", "a.a.a", 1).replace("[", "[[", 1).replace("]", "]]", 1).replace("807", "808")
    with pytest.raises(AtelierError, match=rf"a\.toml(.|\n)*{said}"):
        parse_toml(more, "a.toml")


@pytest.mark.parametrize("value", ["plain", 'a "b" \\ c', "två\nrader\t\x7f", True, 3, -0.5, 5e-05, ["a", 1]])
def test_values_are_read_back_as_they_were_written(value: object) -> None:
    text = f"key = {toml_value(value)}"
    assert "\n" not in text
    assert parse_toml(text, "a file") == {"key": value}
