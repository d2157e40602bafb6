"""Prompt List: lines, affixes and seeds."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from kit.pack import node_classes

pytestmark = pytest.mark.host


def run(pack: ModuleType, text: str, before: str = "", after: str = "", seed: int = 0) -> tuple[Any, ...]:
    node = node_classes(pack)["AtelierPromptList"]
    return node.execute(text=text, before=before, after=after, seed=seed).result  # pyright: ignore[reportAttributeAccessIssue]


def test_each_line_is_a_prompt(pack: ModuleType) -> None:
    prompts, seeds, lines = run(pack, " a cat \n\n# not yet: a fish\r\na house\n", seed=7)
    assert prompts == lines == ["a cat", "a house"]
    assert seeds == [7, 8]


@pytest.mark.parametrize(("before", "after", "expected"), [
    ("a sketch of", "", "a sketch of a cat"), ("a sketch of ", " ", "a sketch of a cat"),
    ("", ", soft light", "a cat, soft light"), ("", "in the rain", "a cat in the rain"),
    (" ", " in fog ", "a cat in fog"),
])
def test_before_and_after_are_added_to_each_prompt(pack: ModuleType, before: str, after: str, expected: str) -> None:
    prompts, _, lines = run(pack, "a cat", before, after)
    assert (prompts, lines) == ([expected], ["a cat"])


def test_seeds_wrap_around(pack: ModuleType) -> None:
    assert run(pack, "a\nb", seed=2**63 - 1)[1] == [2**63 - 1, 0]


@pytest.mark.parametrize("text", ["", " \n ", "# later"])
def test_a_text_without_prompts_raises_an_error(pack: ModuleType, text: str) -> None:
    with pytest.raises(Exception, match=r"text holds no prompt.*one prompt a line"):
        run(pack, text)
