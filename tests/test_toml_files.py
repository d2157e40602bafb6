"""TOML: its limits are checked before parsing, which would take time and memory; values are read as written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from atelier.errors import AtelierError
from atelier.toml_files import TOML, parse_toml, read_toml_text, toml_value


@pytest.mark.parametrize(("most", "said"), [
    (".".join("a" * TOML.depth) + " = 1", "a key of more than 16 parts"),
    ("a = " + "[" * TOML.depth + "]" * TOML.depth, "nested more than 16 deep"),
    ("a = 9223372036854775807", "beyond 64 bits"), ("a = -9223372036854775808", "beyond 64 bits")])
def test_one_more_than_the_most_is_refused(most: str, said: str) -> None:
    assert parse_toml(most, "a.toml")
    more = most.replace("808", "809").replace("807", "808").replace("a.a", "a.a.a", 1)
    more = more.replace("[", "[[", 1).replace("]", "]]", 1)
    with pytest.raises(AtelierError, match=rf"a\.toml(.|\n)*{said}"):
        parse_toml(more, "a.toml")


@pytest.mark.parametrize("value", ["plain", 'a "b" \\ c', "två\nrader\t\x7f", True, 3, -0.5, 5e-05, ["a", 1]])
def test_values_are_read_back_as_they_were_written(value: object) -> None:
    text = f"key = {toml_value(value)}"
    assert "\n" not in text
    assert parse_toml(text, "a file") == {"key": value}


@pytest.mark.parametrize("before", [
    "", '"""x"""", ', '"""x""""", ', "'''x'''', ", "'''x''''', ", '"""""", ', "'''''', "])
@pytest.mark.parametrize(("more", "said"), [("[" * 1000 + "]" * 1000, "nested more than 16 deep"),
                                            ("1" * 5000, "a number of more than 40 digits")])
def test_limits_hold_behind_texts_that_end_in_quotes(before: str, more: str, said: str) -> None:
    assert parse_toml(f"a = [{before}1]", "a.toml")["a"][-1] == 1
    with pytest.raises(AtelierError, match=rf"a\.toml is not valid TOML: it (is|holds) {said}"):
        parse_toml(f"a = [{before}{more}]", "a.toml")


def test_what_a_text_holds_is_no_number_and_no_bracket() -> None:
    text = "[" * 99 + "1" * 99
    for quote in ('"""', "'''", '"', "'"):
        assert parse_toml(f"a = {quote}{text}{quote}", "a.toml") == {"a": text}
    assert parse_toml(f"# {text}", "a.toml") == {}


def test_a_number_of_as_many_digits_as_are_allowed_is_read() -> None:
    assert parse_toml(f"a = 0.{'1' * TOML.digits}", "a.toml")["a"] == pytest.approx(1 / 9)
    with pytest.raises(AtelierError, match="a number of more than 40 digits"):
        parse_toml(f"a = 0.{'1' * (TOML.digits + 1)}", "a.toml")


def test_a_file_as_large_as_the_limit_is_read_and_none_larger(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"#" * TOML.size)
    assert read_toml_text(path, "Choose another.") == "#" * TOML.size
    path.write_bytes(b"#" * (TOML.size + 1))
    with pytest.raises(AtelierError) as raised:
        read_toml_text(path, "Choose another.")
    assert str(raised.value) == f"{path} is not readable TOML: it has more than 1 MB. Choose another."


def test_a_missing_file_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(AtelierError) as raised:
        read_toml_text(tmp_path / "gone.toml", "Choose another.")
    assert str(raised.value) == (f"{tmp_path / 'gone.toml'} cannot be read: {os.strerror(errno.ENOENT)}. "
                                 "Choose another.")
