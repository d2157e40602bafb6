"""Patterns of PEFT's alpha_pattern match the modules that PEFT matches, and what is not read is said."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from atelier.lora.module_patterns import BadPattern, ModulePatterns

ATOMS = st.sampled_from(["a", "b", "1", "_", ".", r"\.", r"\d", r"\w", r"\D", r"\W", r"\s", r"\S", "[ab]", "[^a.]",
                         "[a-c1]", "[]a]", "[a-]", "[^]b]", r"[\d.]", r"[^\w]", "ab", "a_1"])
"""The last two are names to their end, and as parts of expressions."""


def _larger(smaller: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    grouped = st.builds(lambda begin, parts: f"{begin}{'|'.join(parts)})", st.sampled_from(["(", "(?:"]),
                        st.lists(smaller, max_size=3))
    repeated = st.builds(str.__add__, grouped, st.sampled_from(["*", "+", "?", "*?", "+?", "??"]))
    return st.lists(smaller | grouped, min_size=1, max_size=3).map("".join) | repeated


PATTERNS = st.builds(str.__add__, st.recursive(ATOMS, _larger, max_leaves=6), st.sampled_from(["", "$"]))
PATHS = st.lists(st.text("ab1_- c", min_size=1, max_size=3), min_size=1, max_size=4).map(".".join)


@settings(max_examples=300)
@given(st.lists(PATTERNS, min_size=1, max_size=3, unique=True), PATHS)
def test_what_peft_matches(patterns: list[str], path: str) -> None:
    # A name's dot is a dot; PEFT takes it for any character, which no two modules of a model are told apart by.
    asked = [pattern.replace(".", r"\.") if re.fullmatch(r"[\w.]+", pattern) else pattern for pattern in patterns]
    key = get_pattern_key(asked, path)
    values = {pattern: float(number) for number, pattern in enumerate(patterns)}
    assert ModulePatterns(values).find(path) == (float(asked.index(key)) if key in asked else None)


@pytest.mark.parametrize(("pattern", "path"), [
    ("^b", "b"), ("^b", "a.b"), ("b", "a.b"), ("b", "ab"), ("b", "b.a"), ("^a.b", "a.b"), ("^a$", "a"), (r"a\$", "a$"),
    ("a+b", "a.aab"), ("(to_[qk]|ff)\\.0", "mid.to_k.0"), ("(to_[qk]|ff)\\.0", "mid.to_v.0"), ("a.*", "x.a.b.c")])
def test_of_paths_of_modules(pattern: str, path: str) -> None:
    assert (ModulePatterns({pattern: 1.0}).find(path) is not None) == (get_pattern_key([pattern], path) == pattern)


def test_the_first_that_matches_counts() -> None:
    patterns = ModulePatterns({"to_.*": 1, "to_q": 2, "mid.to_k": 3, "to_[k]": 4})
    assert [patterns.find(path) for path in ("a.to_q", "mid.to_k", "to_v", "proj")] == [1, 1, 1, None]
    assert ModulePatterns({"mid.to_k": 3, "to_k": 5, "to_[k]": 4}).find("down.mid.to_k") == 3


@pytest.mark.parametrize(("pattern", "why"), [
    ("(a", "a bracket is not closed"), ("a*)", "closed that was not opened"), ("[ab", "a class is not closed"),
    ("[b-a]", "a range that is not read"), (r"[a-\d]", "a range that is not read"), ("*a", r"\* stands where"),
    ("a**", r"\* stands where"), ("a*+", r"\+ stands where"), ("a{2}", "{ stands where"), ("(?=a)", r"\? stands where"),
    ("a|^b", r"\^ stands where"), ("^a|b", r"\^ stands before"), (r"\b", r"\\b is not read"), ("a\\", "is not read"),
    ("", "it has 0 characters"), ("a" * 200 + "*", "it has 201 characters"),
    ("(" * 17 + "a" + ")" * 17, "nested more than 16 deep")])
def test_what_is_not_read_is_said(pattern: str, why: str) -> None:
    with pytest.raises(BadPattern, match=why):
        ModulePatterns({pattern: 1.0})


def test_limits_hold_exactly() -> None:
    assert ModulePatterns({"(" * 15 + "a" + ")" * 15: 2.0}).find("a") == 2.0
    assert ModulePatterns({"a" * 199 + "*": 2.0}).find("a" * 199) == 2.0
    assert ModulePatterns({"a" * number + "*": float(number) for number in range(1, 65)}).find("b") is None
    with pytest.raises(BadPattern, match="more than 64 expressions"):
        ModulePatterns({"a" * number + "*": float(number) for number in range(1, 66)})
