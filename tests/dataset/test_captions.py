"""Templates, the trigger word and shuffled variants."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atelier.dataset.captions import (
    check_template,
    class_captions,
    fill_template,
    variants,
    with_class,
    with_trigger,
    with_variants,
)
from atelier.dataset.types import Sample, TrainingSet
from atelier.errors import AtelierError

TAGS = st.lists(st.text("abcxyz ", min_size=1, max_size=4).map(str.strip).filter(bool), min_size=1, max_size=6)


def test_a_template_is_filled() -> None:
    fields = {"stem": "red fox 1", "trigger": "sks", "folder": "foxes"}
    assert fill_template("a {trigger} of {folder}, {stem} {{x}}", fields) == "a sks of foxes, red fox 1 {x}"
    assert fill_template("{trigger} {stem}", {**fields, "trigger": ""}) == "red fox 1"


@pytest.mark.parametrize("template", ["{name}", "{stem.upper}", "{stem[0]}", "{}", "{0}", "{stem!r}", "{stem:>9}"])
def test_an_unknown_field_is_named_with_the_allowed_ones(template: str) -> None:
    with pytest.raises(AtelierError) as caught:
        check_template("a photo of " + template)
    assert template in str(caught.value)
    assert all(field in str(caught.value) for field in ("{stem}", "{trigger}", "{folder}"))


@pytest.mark.parametrize("template", ["{stem", "stem}"])
def test_an_unpaired_brace_is_an_error(template: str) -> None:
    with pytest.raises(AtelierError, match="cannot be read"):
        check_template(template)


@pytest.mark.parametrize(("caption", "expected"), [
    ("a fox", "sks, a fox"), ("a sks fox", "a sks fox"), ("A SKS fox", "A SKS fox"), ("asks a fox", "sks, asks a fox"),
    ("", "sks")])
def test_the_trigger_word_is_put_in_front_once(caption: str, expected: str) -> None:
    assert with_trigger(caption, "sks") == expected


def test_no_trigger_changes_nothing() -> None:
    assert with_trigger("a fox", "") == "a fox"


@settings(deadline=None)
@given(TAGS, st.integers(1, 12), st.integers(0, 6), st.integers(0, 5))
def test_variants_are_distinct_orders_of_the_same_tags(tags: list[str], count: int, keep: int, seed: int) -> None:
    caption = ",".join(tags)
    found = variants(caption, count, keep, seed)
    assert found[0] == caption
    split = [[tag.strip() for tag in variant.split(",")] for variant in found]
    assert all(order[:keep] == tags[:keep] and sorted(order) == sorted(tags) for order in split)
    possible = set(permutations(tags[keep:]))
    assert len(found) == len({tuple(order) for order in split}) == min(count, len(possible))
    assert variants(caption, count, keep, seed) == found


def test_variants_are_the_same_everywhere() -> None:
    # Written down once: what is cached on one machine must be asked for on another.
    assert variants("sks, a, b, c, d", 4, 1, 0) == (
        "sks, a, b, c, d", "sks, d, c, b, a", "sks, c, d, a, b", "sks, d, a, c, b")


def test_another_seed_gives_other_orders() -> None:
    caption = ", ".join("abcdefgh")
    assert variants(caption, 4, 0, 1) != variants(caption, 4, 0, 2)


@settings(deadline=None)
@given(TAGS, st.integers(2, 12), st.integers(0, 6), st.floats(0.05, 0.95))
def test_dropped_tags_are_free_ones_and_some_stay(tags: list[str], count: int, keep: int, share: float) -> None:
    caption = ", ".join(tags)
    found = variants(caption, count, keep, 0, share)
    assert found[0] == caption
    assert len(found) == len(set(found)) <= count
    for variant in found[1:]:
        parts = variant.split(", ")
        assert parts[:keep] == tags[:keep][:len(parts)] and parts
        assert not Counter(parts) - Counter(tags)
    assert variants(caption, count, keep, 0, share) == found


def test_tags_are_dropped_as_often_as_asked() -> None:
    tags = [f"t{number}" for number in range(40)]
    found = variants(", ".join(["sks", *tags]), 201, 1, 0, 0.25)[1:]
    assert len(found) == 200
    lengths = [len(variant.split(", ")) - 1 for variant in found]
    assert sum(lengths) / len(lengths) == pytest.approx(30, abs=1)  # standard error 0.19
    assert all(variant.startswith("sks, ") for variant in found)
    assert len({variant.split(", ")[1] for variant in found}) > 10, "shuffled, too"


def test_a_training_set_gets_variants(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("a") / "a.png"
    sample = Sample(image=path, captions=("a, b, c", "one sentence"), digest="00", size=(8, 8))
    data = TrainingSet(samples=(sample,))
    more = with_variants(data, 3, 0, seed=0)
    assert more.samples[0].captions == (*variants("a, b, c", 3, 0, 0), "one sentence")
    assert with_variants(data, 1, 0, seed=0) == data
    assert more.digest != data.digest


@pytest.mark.parametrize(("caption", "expected"), [
    ("ohwx in the snow", "dog in the snow"), ("a photo of OHWX dog, snow", "a photo of dog, snow"),
    ("ohwx, ohwx", "dog, dog"), ("ohwx dogs", "dog dogs"), ("ohwxy", None), ("snow", None), ("", None)])
def test_the_class_word_takes_the_triggers_place(caption: str, expected: str | None) -> None:
    assert with_class(caption, "ohwx", "dog") == expected
    assert with_class(caption, "", "dog") is None and with_class(caption, "ohwx", "") is None


def test_words_are_no_patterns() -> None:
    assert with_class("a c++ in the snow", "c++", r"\1 .") == r"a \1 . in the snow"


def test_class_captions_are_listed_once() -> None:
    samples = tuple(Sample(image=Path("a.png"), captions=captions, digest="", size=(8, 8))
                    for captions in [("ohwx, red", "red"), ("dog, red", "ohwx, blue"), ("ohwx, red",)])
    data = TrainingSet(samples=samples, trigger="ohwx")
    assert class_captions(data, "dog") == ["dog, red", "dog, blue"] and class_captions(data, "") == []
