"""Answers that are nearly JSON: read if it is clear what was meant, refused otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.prompts import near_json
from atelier.prompts.structured import Question, Unusable, object_schema, read_answer, text_field

TEXT = {"type": "string"}
CAT = {"positive": "a cat's eye, neon", "negative": "blurry", "title": "Cat"}


def read(answer: Mapping[str, Any]) -> dict[str, str]:
    return {name: text_field(answer, name, 200, required=name != "negative") for name in CAT}


QUESTION = Question([], object_schema(dict.fromkeys(CAT, TEXT)), read)


@pytest.mark.parametrize("text", [
    json.dumps({"prompt": CAT}), json.dumps({"result": {"answer": CAT}}), json.dumps([CAT]),
    json.dumps({"output": json.dumps(CAT)}), json.dumps(json.dumps(CAT)), json.dumps(CAT).replace('"', '\\"'),
    json.dumps({name.capitalize(): value for name, value in CAT.items()}),
    json.dumps({f"{name.upper()} PROMPT": value for name, value in CAT.items()}),
    json.dumps({"positive_prompt": CAT["positive"], "negativePrompt": "blurry", "Title": "Cat"}),
    str(CAT), "{'positive': 'a cat\\'s eye, neon', 'negative': 'blurry', 'title': 'Cat'}",
    "{'positive': 'a cat's eye, neon', 'negative': 'blurry', 'title': 'Cat'}",
    '{positive: "a cat\'s eye, neon", negative: "blurry", title: "Cat"}',
    '{"positive": "a cat\'s eye, neon", // as you wished\n "negative": "blurry", # usual\n /* short */ "title": "Cat"}',
    json.dumps(CAT)[:-1], f"```json\n{json.dumps(CAT)[:-1]}\n```", '{"prompt": ' + json.dumps(CAT),
    '{"positive": "a cat\'s eye, neon"\n "negative": "blurry"\n "title": "Cat"}',
    json.dumps(CAT).replace(",", ",,").replace("eye,,", "eye,"), json.dumps(CAT)[:-1] + ",}",
    "{\u201cpositive\u201d: \u201ca cat's eye, neon\u201d, \u201cnegative\u201d: \u201cblurry\u201d, "
    "\u201ctitle\u201d: \u201cCat\u201d}",
])
def test_what_was_meant_is_read(text: str) -> None:
    assert read_answer(QUESTION, text) == CAT
    assert read_answer(QUESTION, f"Here you are:\n{text}") == CAT


@pytest.mark.parametrize("word", ["null", "None"])
def test_null_is_no_text(word: str) -> None:
    text = '{"positive": "a cat", "negative": null, "title": "Cat"}'.replace("null", word)
    assert read_answer(QUESTION, text) == {"positive": "a cat", "negative": "", "title": "Cat"}
    with pytest.raises(Unusable, match='"title" is missing'):
        read_answer(QUESTION, text.replace('"Cat"', word))


@pytest.mark.parametrize("keys", [("positive", "positive_prompt"), ("Positive", "positive")])
def test_a_key_that_is_spelt_as_asked_for_counts_before_one_that_is_alike(keys: tuple[str, str]) -> None:
    values = {key: "a cat" if key == "positive" else "a dog" for key in keys}
    assert read_answer(QUESTION, json.dumps({**values, "negative": "", "title": "Cat"}))["positive"] == "a cat"


def test_quotes_inside_a_text_belong_to_it() -> None:
    text = '{"positive": "a "neon" cat", "negative": "", "title": "The "Cat""}'
    assert read_answer(QUESTION, text) == {"positive": 'a "neon" cat', "negative": "", "title": 'The "Cat"'}


def test_control_characters_do_not_reach_a_prompt() -> None:
    text = r'{"positive": "a\u0000 cat\u001b[1m,\u0007\ttabby\ud83d", "negative": "", "title": "C\u0085at"}'
    assert read_answer(QUESTION, text) == {"positive": "a cat[1m, tabby", "negative": "", "title": "C at"}


@pytest.mark.parametrize("text", [
    '{"positive": "a cat\'s eye, ne', '{"positive": "a cat", "negative": "", "tit', "{smile}", "{'a': }", "[1, 2]",
    '"positive": "a cat", "title": "Cat"', "{" * 5000, "{'" * 5000, '{"positive": ' + "9" * 5000,
    "[" * 40_000, "{'a':" * 5000, '{"a": "' * 4000])
def test_what_breaks_off_or_is_unclear_is_refused(text: str) -> None:
    with pytest.raises(Unusable):
        read_answer(QUESTION, text)


def test_a_list_without_its_key_and_with_capitals_is_the_only_list_there_is() -> None:
    def read_all(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
        if "prompts" not in answer:
            raise Unusable("no prompts")
        return [(entry["category"], entry["prompt"]) for entry in answer["prompts"]]

    entry = object_schema({"category": TEXT, "prompt": TEXT})
    question = Question([], object_schema({"prompts": {"type": "array", "items": entry}}), read_all)
    entries = [{"Category": "space", "Prompt": "a comet"}, {"category": "animal", "prompt": "an otter"}]
    expected = [("space", "a comet"), ("animal", "an otter")]
    for text in (json.dumps(entries), json.dumps({"Prompts": entries}), json.dumps({"prompts": entries})[:-2],
                 json.dumps({"result": {"prompts": entries}})):
        assert read_answer(question, text) == expected


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
                    | st.text(st.characters(exclude_categories=["Cs"])),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner,
                                                                                max_size=3), max_leaves=8))
def test_json_is_read_as_json_reads_it(value: Any) -> None:
    assert near_json.values(json.dumps([[value]], ensure_ascii=True)) == [[[value]]]
