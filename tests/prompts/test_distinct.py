"""Prompts that say the same again are found by their words, whatever their number, order and small words."""

from __future__ import annotations

import pytest

from atelier.prompts.distinct import Distinct, repeats, stems


@pytest.mark.parametrize(("one", "several"), [
    ("berry", "berries"), ("church", "churches"), ("brush", "brushes"), ("glass", "glasses"), ("fox", "foxes"),
    ("tree", "trees"), ("cat", "Cats"), ("glass", "GLASS"), ("house", "houses")])
def test_a_word_and_its_plural_are_one(one: str, several: str) -> None:
    assert stems(one) == stems(several) == {one}


@pytest.mark.parametrize(("text", "words"), [
    ("pies, ties, axes", {"pie", "tie", "axe"}), ("gas bus", {"gas", "bus"}), ("of the, and", set()),
    ("the foxes of an owl, under its tree", {"fox", "owl", "tree"}), ("2 cats, 12 dogs", {"2", "cat", "12", "dog"}),
    ("Füchse im_Schnee", {"füchse", "im", "schnee"})])
def test_words_are_taken_apart_and_small_ones_left_out(text: str, words: set[str]) -> None:
    assert stems(text) == words


def test_a_subject_that_holds_another_repeats_it() -> None:
    seen = Distinct()
    assert seen.add("snow leopard", "one two three")
    assert not seen.add("a leopard", "four five six")
    assert not seen.add("old snow leopards", "four five six")
    assert not seen.add("of the", "four five six")
    assert seen.add("snow owl", "four five six"), "what was refused is not remembered"


def test_three_fifths_of_all_words_make_a_repetition() -> None:
    # Of the first, the second has 3 of 5 words, and the third 2 of 6.
    pairs = [("lynx", "red fox hill dawn"), ("owl", "red fox hill night"), ("bear", "red fox river night")]
    assert repeats(pairs) == [1]
