"""JSON of strangers is read within limits, found out before it takes the memory."""

from __future__ import annotations

import pytest

from atelier.json_files import parse_json
from atelier.limits import BeyondLimits, Limits

FEW = Limits(count=10)


@pytest.mark.parametrize("text", ["[" + ",".join("1" * 20) + "]", "[" * 20 + "]" * 20, '{"a":' * 20 + "1" + "}" * 20,
                                  "[[" + "],[".join("123456") + "]]"])
def test_many_values_are_refused_whether_listed_nested_or_both(text: str) -> None:
    with pytest.raises(BeyondLimits, match="more than 10 values"):
        parse_json(text, FEW)


def test_as_many_as_are_allowed_are_read() -> None:
    assert parse_json("[" + ",".join("123456789") + "]", FEW) == [*range(1, 10)]
