"""JSON of strangers is read within limits, found out before it takes the memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from atelier.errors import AtelierError
from atelier.json_files import parse_json, read_json
from atelier.limits import BeyondLimits, Limits

FEW = Limits(count=10)


@pytest.mark.parametrize("text", ["[" + ",".join("1" * 20) + "]", "[" * 20 + "]" * 20, '{"a":' * 20 + "1" + "}" * 20,
                                  "[[" + "],[".join("123456") + "]]"])
def test_many_values_are_refused_whether_listed_nested_or_both(text: str) -> None:
    with pytest.raises(BeyondLimits, match="more than 10 values"):
        parse_json(text, FEW)


def test_as_many_as_are_allowed_are_read() -> None:
    assert parse_json("[" + ",".join("123456789") + "]", FEW) == [*range(1, 10)]


def test_a_text_of_as_many_characters_as_are_allowed_is_read_and_none_longer() -> None:
    assert parse_json('"123456"', Limits(size=8)) == "123456"
    assert parse_json("\ufeff12345678".encode(), Limits(size=8)) == 12345678  # a byte order mark is no character
    with pytest.raises(BeyondLimits, match="more than 8 characters"):
        parse_json('"1234567"', Limits(size=8))


@pytest.mark.parametrize(("most", "more", "limits", "said"), [
    ("123456789", "1234567890", Limits(size=9), "it has more than 0 kB"),
    (" " * 3000, " " * 3001, Limits(size=3000), "it has more than 2 kB"),
    (" " * (2**20 - 1), " " * 2**20, Limits(size=2**20 - 1), "it has more than 1023 kB"),
    (" " * 2**20, " " * (2**20 + 1), Limits(size=2**20), "it has more than 1 MB"),
    ("[[[1]]]", "[[[[1]]]]", Limits(depth=3), "it is nested more than 3 deep"),
    ('{"a": [{"a": 1}]}', '{"a": [{"a": []}]}', Limits(depth=3), "it is nested more than 3 deep"),
    ("1234", "12345", Limits(digits=4), "it holds a number of 5 digits")], ids=lambda value: str(value)[:20])
def test_a_file_at_the_limit_is_read_and_one_beyond_is_refused_by_it(most: str, more: str, limits: Limits, said: str,
                                                                     tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(most if most.strip() else f"{most[1:]}1", encoding="utf-8")
    read_json(path, "Choose another.", limits)
    path.write_text(more if more.strip() else f"{more[1:]}1", encoding="utf-8")
    with pytest.raises(AtelierError) as raised:
        read_json(path, "Choose another.", limits)
    assert str(raised.value) == f"{path} is not readable JSON: {said}. Choose another."


def test_a_missing_file_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(AtelierError) as raised:
        read_json(tmp_path / "gone.json", "Choose another.")
    assert str(raised.value) == (f"{tmp_path / 'gone.json'} cannot be read as JSON: {os.strerror(errno.ENOENT)}. "
                                 "Choose another.")
