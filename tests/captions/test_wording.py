"""Captions as they are written down: trigger word, forbidden words, the limit in tokens."""

from __future__ import annotations

import pytest
from PIL import Image

from atelier.captions.question import LONGEST_CAPTION, question
from atelier.captions.request import CaptionRequest, CaptionStyle, word_list
from atelier.captions.wording import bare, caption, forbidden_in, tags_without
from atelier.errors import AtelierError
from atelier.prompts.structured import Unusable


@pytest.mark.parametrize(("text", "expected"), [
    ("A dog on a beach.", "ohwx, A dog on a beach."),
    ("An ohwx dog, ohwx, on a beach.", "ohwx, An dog, on a beach."),
    ("Ohwx", "ohwx"),
    ("the ohwxes stay", "ohwx, the ohwxes stay"),
])
def test_the_trigger_stands_in_front_once_and_not_in_the_description(text: str, expected: str) -> None:
    assert caption(text, CaptionRequest(trigger="ohwx")) == expected


def test_tags_with_the_trigger_go() -> None:
    request = CaptionRequest(trigger="ohwx", style=CaptionStyle.TAGS)
    assert caption("1girl, ohwx girl, hat", request) == "ohwx, 1girl, hat"


def test_the_limit_counts_the_trigger_and_cuts_at_a_comma() -> None:
    request = CaptionRequest(trigger="ohwx", tokens=8)
    assert caption("red hat, blue coat, green shoes", request, lambda text: len(text.split())) == \
        "ohwx, red hat, blue coat, green shoes"
    assert caption("red hat, blue coat, green shoes, a cane", request, lambda text: len(text.split())) == \
        "ohwx, red hat, blue coat, green shoes"
    assert caption("a " * 500, CaptionRequest(tokens=0)) == "a " * 500


def test_words_are_found_whole_and_in_any_case() -> None:
    assert forbidden_in("A Photo of a catalogue", ["photo", "cat", "of  a"]) == ["photo", "of  a"]
    assert tags_without("Photo (medium), cat, cat, solo; looking at viewer.", ["photo"]) == \
        "cat, solo, looking at viewer"


@pytest.mark.parametrize("text", ["Caption: a dog", 'Here is a caption: "a dog"', "**a dog**", "“a dog”", "a dog",
                                  "Sure! Here is the description:\na dog"])
def test_what_models_put_around_a_caption_goes(text: str) -> None:
    assert bare(text) == "a dog"


def test_a_colon_inside_a_caption_stays() -> None:
    assert bare("a sign that says: open") == "a sign that says: open"
    assert bare('"Stop" on a sign, "go" on another') == '"Stop" on a sign, "go" on another'


@pytest.mark.parametrize(("settings", "message"), [
    ({"style": "poem"}, "style is 'poem'"), ({"style": "own"}, "no instruction"), ({"tokens": 3}, "token limit is 3"),
    ({"instruction": "x" * 4001}, "4001 characters"), ({"trigger": "cat", "forbidden": ("Cat",)}, "trigger word 'cat'"),
])
def test_a_request_names_what_is_wrong(settings: dict, message: str) -> None:
    with pytest.raises(AtelierError, match=message):
        CaptionRequest(**settings)


def test_words_are_separated_by_commas_and_lines() -> None:
    assert word_list("photo, picture of\n\nimage,") == ("photo", "picture of", "image")


def test_an_answer_of_forbidden_tags_alone_is_asked_for_again() -> None:
    asked = question(Image.new("RGB", (8, 8)), CaptionRequest(style=CaptionStyle.TAGS, forbidden=("hat",)))
    assert asked.read_plain is not None
    with pytest.raises(Unusable, match="nothing is left"):
        asked.read_plain("hat, a red hat")
    assert asked.read_plain("hat, tree") == "tree"


@pytest.mark.parametrize(("text", "why"), [
    (" \n", "it is empty"), ('""', "it is empty"), ("Caption: ", "it is empty"),
    ("x" * (LONGEST_CAPTION + 1), f"{LONGEST_CAPTION + 1} characters long, more than {LONGEST_CAPTION}"),
], ids=["blank", "quotes", "heading", "too long"])
def test_an_answer_in_plain_words_that_is_no_caption_is_asked_for_again(text: str, why: str) -> None:
    asked = question(Image.new("RGB", (8, 8)), CaptionRequest())
    assert asked.read_plain is not None
    with pytest.raises(Unusable, match=why):
        asked.read_plain(text)
    assert asked.read_plain("x" * LONGEST_CAPTION) == "x" * LONGEST_CAPTION


@pytest.mark.parametrize(("tokens", "said"), [(75, "Stay below 75 tokens, about 50 words."), (0, "")])
def test_the_model_is_told_of_the_limit_where_there_is_one(tokens: int, said: str) -> None:
    rules = question(Image.new("RGB", (8, 8)), CaptionRequest(tokens=tokens)).messages[0]["content"]
    assert isinstance(rules, str) and said in rules
    assert ("tokens" in rules) == bool(said)
