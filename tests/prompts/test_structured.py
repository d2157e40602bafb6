"""Prompts out of models that keep to instructions well, badly and not at all."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path

import pytest
from kit.fake_llm import GOOD, FakeLlm

from atelier.errors import AtelierError
from atelier.prompts.answer_cache import AnswerCache
from atelier.prompts.art_request import CATEGORIES, MOST_PROMPTS, ArtRequest
from atelier.prompts.client import ChatClient
from atelier.prompts.credentials import CredentialStore
from atelier.prompts.endpoints import LanguageModel
from atelier.prompts.examples import ExampleLibrary
from atelier.prompts.fields import PromptFields, PromptStyle
from atelier.prompts.random_art import written_prompts
from atelier.prompts.request import PromptRequest, WrittenPrompt
from atelier.prompts.write import write

REQUEST = PromptRequest(idea="a cat wearing neon-glasses", seed=3)
CANARY = "sk-canary-7f3a91c2d5e84b06-do-not-show"


def client(fake: FakeLlm, **settings: object) -> ChatClient:
    return ChatClient(llm=LanguageModel(base_url=fake.base_url, model="fake-model", **settings), pause=0.01)


def good(written: WrittenPrompt) -> bool:
    return (written.positive, written.negative, written.title) == tuple(GOOD.values())


# The ladder ---------------------------------------------------------------------------------------------------------

def test_one_call_gives_positive_negative_and_title(fake: FakeLlm) -> None:
    written = write(REQUEST, client(fake))
    assert good(written)
    assert written.source == f"fake-model at {fake.base_url[7:-3]}" and not written.tokens.exact
    assert len(fake.requests) == 1
    sent = fake.requests[0].body["response_format"]
    assert sent["type"] == "json_schema" and sent["json_schema"]["strict"]
    assert sent["json_schema"]["schema"]["required"] == ["positive", "negative", "title"]


def test_steps_down_to_json_object_and_to_plain_text(fake: FakeLlm) -> None:
    fake.say(status=400, error={"error": {"message": "json_schema is not supported, use json_object"}})
    fake.say(status=400, error={"error": {"message": "response_format is unavailable"}})
    assert good(write(REQUEST, client(fake)))
    formats = [r.body.get("response_format", {}).get("type") for r in fake.requests]
    assert formats == ["json_schema", "json_object", None]


@pytest.mark.parametrize("text", [
    "```json\n{}\n```", "Sure! Here you go:\n```\n{}\n```\nEnjoy!",
    "<think>a {{\"positive\": \"draft\"}} first?</think>{}",
    "<thinking>\nhmm</thinking>\n\n{}", "{} I hope this helps {{smile}}",
])
def test_the_object_is_found_whatever_stands_around_it(fake: FakeLlm, text: str) -> None:
    body = json.dumps(GOOD)
    fake.say(text.replace("{}", body).replace("{{", "{").replace("}}", "}"))
    assert good(write(REQUEST, client(fake)))
    assert len(fake.requests) == 1


def test_trailing_commas_and_line_breaks_in_texts(fake: FakeLlm) -> None:
    fake.say('{"positive": "a cat,\n neon", "negative": "blurry", "title": "Cat",}')
    assert write(REQUEST, client(fake)).positive == "a cat, neon"


def test_lists_of_tags_are_joined(fake: FakeLlm) -> None:
    fake.say(json.dumps({**GOOD, "positive": ["a cat", "neon"]}))
    assert write(REQUEST, client(fake)).positive == "a cat, neon"


BAD = {
    "broken JSON": '{"positive": "a cat", "negat',
    "no JSON": "I would draw a cat.",
    "empty": "",
    "only thinking": "<think>still thinking about",
    "a missing field": json.dumps({"positive": "a cat", "negative": ""}),
    "a wrong type": json.dumps({**GOOD, "positive": 7}),
    "a null": json.dumps({**GOOD, "title": None}),
    "an empty positive": json.dumps({**GOOD, "positive": "  "}),
    "a list": json.dumps([GOOD["positive"]]),
    "a huge field": json.dumps({**GOOD, "positive": "cat, " * 1000}),
    "a huge answer": json.dumps(GOOD) + "x" * 100_000,
    "a draft in thinking that was cut": f"<think>perhaps {json.dumps(GOOD)}, but",
    "deep nesting": "{" * 50_000,
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_bad_answer_gets_one_chance_to_be_repaired(fake: FakeLlm, text: str) -> None:
    fake.say(text)
    assert good(write(REQUEST, client(fake)))
    assert len(fake.requests) == 2
    assert "cannot be used" in fake.requests[1].body["messages"][-1]["content"]
    assert len(json.dumps(fake.requests[1].body)) < 20_000


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_model_that_never_answers_well_is_an_error_not_a_prompt(fake: FakeLlm, text: str) -> None:
    fake.say(text).say(text)
    with pytest.raises(AtelierError, match="cannot be used"):
        write(REQUEST, client(fake))
    assert len(fake.requests) == 2


def test_an_answer_cut_at_the_token_limit_says_so(fake: FakeLlm) -> None:
    for _ in range(2):
        fake.say('{"positive": "a cat', finish="length")
    with pytest.raises(AtelierError, match="cut at 4000 tokens"):
        write(REQUEST, client(fake))


def test_the_last_object_counts(fake: FakeLlm) -> None:
    fake.say(f'{json.dumps({**GOOD, "positive": "a draft"})} and then {json.dumps(GOOD)}')
    assert good(write(REQUEST, client(fake)))


def test_tokens_and_cost_add_up_over_the_repair(fake: FakeLlm) -> None:
    fake.say("nonsense")
    cost = write(REQUEST, client(fake, price_in=1.0, price_out=1.0)).cost
    assert (cost.tokens_in, cost.tokens_out) == (200, 100) and cost.cost == pytest.approx(300e-6)


# What is asked ------------------------------------------------------------------------------------------------------

def test_fields_are_joined_in_order_and_fixed_ones_kept(fake: FakeLlm) -> None:
    fake.say(json.dumps({"medium": "photo", "subject": "a cat", "body": "", "hair": "", "face": "calm",
                         "lighting": "sun", "resolution": "8k", "colours": "red",
                         "negative": "blurry", "title": "Cat"}))
    request = PromptRequest(idea="a cat", prompt_style=PromptStyle.FIELDS,
                            fields=PromptFields(lighting="neon rim light"))
    assert write(request, client(fake)).positive == "photo, a cat, calm, neon rim light, 8k, red"
    assert "neon rim light" in fake.requests[0].body["messages"][-1]["content"]


def test_fields_that_are_all_empty_are_asked_for_again(fake: FakeLlm) -> None:
    empty = json.dumps({**dict.fromkeys(PromptFields.names(), ""), "negative": "blurry", "title": "Cat"})
    request = PromptRequest(idea="a cat", prompt_style=PromptStyle.FIELDS)
    assert "subject words" in write(request, client(fake.say(empty))).positive
    assert "every field is empty" in fake.requests[1].body["messages"][-1]["content"]
    fake.forget().say(empty)
    fixed = PromptRequest(idea="a cat", prompt_style=PromptStyle.FIELDS, fields=PromptFields(lighting="neon"))
    assert write(fixed, client(fake)).positive == "neon" and len(fake.requests) == 1


def test_a_budget_is_said_to_the_model_and_none_is_not(fake: FakeLlm) -> None:
    for budget in (60, 0):
        write(PromptRequest(idea="a cat", budget=budget), client(fake))
    limited, free = (request.body["messages"][0]["content"] for request in fake.requests)
    assert " Stay below 60 tokens, about 40 words, in each. Keep to" in limited
    assert "Stay below" not in free and "picture. Keep to" in free


def test_examples_style_and_idea_reach_the_model(fake: FakeLlm) -> None:
    examples = ExampleLibrary().get("photoreal-sd15")
    write(PromptRequest(idea="a lighthouse", style="film noir", examples=examples), client(fake))
    messages = fake.requests[0].body["messages"]
    assert [m["role"] for m in messages] == ["system", *["user", "assistant"] * len(examples.examples), "user"]
    assert json.loads(messages[2]["content"])["negative"] == examples.examples[0].negative
    assert "a lighthouse" in messages[-1]["content"] and "film noir" in messages[-1]["content"]
    assert examples.advice in messages[0]["content"]


def test_a_prompt_over_the_budget_loses_its_end_and_says_so(fake: FakeLlm) -> None:
    fake.say(json.dumps({**GOOD, "positive": "one two three, four five six, seven eight nine"}))
    written = write(PromptRequest(idea="numbers", budget=8), client(fake), counter=lambda text: len(text.split()))
    assert written.positive == "one two three, four five six" and written.cut
    assert (written.tokens.number, written.tokens.exact) == (6, True)


# Cache and fallback -------------------------------------------------------------------------------------------------

def test_the_same_question_is_not_paid_twice(fake: FakeLlm, tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    first = write(REQUEST, client(fake), cache)
    again = write(REQUEST, client(fake), cache)
    assert len(fake.requests) == 1
    assert again.positive == first.positive and again.source.endswith("from the cache")
    assert (again.cost.tokens_in, again.cost.cost) == (0, 0)


@pytest.mark.parametrize("change", ["seed", "idea", "model", "temperature"])
def test_another_question_is_asked(fake: FakeLlm, tmp_path: Path, change: str) -> None:
    cache = AnswerCache(tmp_path)
    write(REQUEST, client(fake), cache)
    request = {"seed": PromptRequest(idea=REQUEST.idea, seed=4),
               "idea": PromptRequest(idea="a dog", seed=3)}.get(change, REQUEST)
    llm = {"model": LanguageModel(base_url=fake.base_url, model="other"),
           "temperature": LanguageModel(base_url=fake.base_url, model="fake-model", temperature=0.1)}.get(change)
    write(request, ChatClient(llm=llm) if llm else client(fake), cache)
    assert len(fake.requests) == 2


def test_a_damaged_or_foreign_cache_file_is_asked_again(fake: FakeLlm, tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    for content in ("{broken", '{"answer": 3}', '{"answer": "{\\"positive\\": 1}"}', "[]"):
        write(REQUEST, client(fake), cache)
        next(tmp_path.glob("*.json")).write_text(content, encoding="utf-8")
    assert good(write(REQUEST, client(fake), cache))
    assert len(fake.requests) == 5


def test_an_answer_that_cannot_be_kept_is_used(fake: FakeLlm, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert good(write(REQUEST, client(fake), AnswerCache(tmp_path / "file" / "answers")))
    assert len(fake.requests) == 1 and "could not be kept" in caplog.text


@pytest.mark.parametrize("outer", [False, True])
def test_half_a_character_is_left_out(fake: FakeLlm, tmp_path: Path, outer: bool) -> None:
    """Models that are cut within an emoji write half of its escape, which no file could hold."""
    text = json.dumps({**GOOD, "positive": "a cat \ud83d", "title": "Cat \U0001f431"}, ensure_ascii=not outer)
    fake.say(text)
    written = write(REQUEST, client(fake), AnswerCache(tmp_path))
    assert (written.positive, written.title) == ("a cat", "Cat \U0001f431")


def test_bad_answers_are_not_cached(fake: FakeLlm, tmp_path: Path) -> None:
    fake.say("nonsense").say("nonsense")
    with pytest.raises(AtelierError):
        write(REQUEST, client(fake), AnswerCache(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_offline_writer_steps_in_only_if_chosen_and_says_why(fake: FakeLlm) -> None:
    for _ in range(2):
        fake.say(status=401, error={"error": {"message": "bad key"}})
    with pytest.raises(AtelierError, match="answered 401"):
        write(REQUEST, client(fake))
    written = write(REQUEST, client(fake), fall_back=True)
    assert "neon-glasses" in written.positive and "bad key" not in written.positive + written.negative + written.title
    assert written.source.startswith("the offline writer, because: ") and "401" in written.source


def test_a_missing_key_is_a_failure_like_any_other(fake: FakeLlm, tmp_path: Path) -> None:
    llm = LanguageModel(base_url=fake.base_url, model="fake-model", credential="MY_KEY")
    file = tmp_path / "credentials.toml"
    file.write_text(f'[MY_KEY]\nbase_urls = ["{fake.base_url}"]', encoding="utf-8")
    file.chmod(0o600)
    store, cache = CredentialStore(file, {}), AnswerCache(tmp_path / "answers")
    with pytest.raises(AtelierError, match="MY_KEY has no key"):
        write(REQUEST, ChatClient(llm=llm, credentials=store), cache)
    assert "MY_KEY has no key" in write(REQUEST, ChatClient(llm=llm, credentials=store), cache, fall_back=True).source
    # What was answered once needs no key again.
    write(REQUEST, ChatClient(llm=llm, credentials=CredentialStore(file, {"MY_KEY": CANARY})), cache)
    assert write(REQUEST, ChatClient(llm=llm, credentials=store), cache).source.endswith("from the cache")


# Keys ---------------------------------------------------------------------------------------------------------------

ECHOES = {
    "in an error": {"status": 401, "error": {"error": {"message": f"Incorrect API key provided: {CANARY}."}}},
    "in part, in an error": {"status": 401, "error": {"error": {"message": f"{CANARY[:14]}…{CANARY[-9:]} is bad"}}},
    "in an odd error": {"status": 400, "error": {"detail": {"key": CANARY}}},
    "in a body that is no completion": {"error": f"you sent {CANARY}".encode()},
    "in a bad answer": {"text": f"your key is {CANARY}"},
    "in a refusal": {"refusal": f"not with {CANARY}"},
    "in a good answer": {"text": json.dumps({**GOOD, "positive": f"a cat, {CANARY}", "title": CANARY})},
    "in an address to type": {"status": 301, "error": {}, "headers": {
        "Location": f"https://example.org/{CANARY}/chat/completions"}},
    "in an error inside an answer": {"error": {"error": {"code": 418, "message": f"no {CANARY}"}}},
    "in a stream": {"error": f'data: {{"error": {{"message": "{CANARY}"}}}}\n\n'.encode()},
    "in thoughts": {"message": {"content": "", "reasoning_content": f"the key {CANARY}"}},
    "in a redirect": {"status": 302, "error": {}, "headers": {"Location": f"https://example.org/{CANARY}"}},
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
def test_a_key_that_the_server_echoes_shows_up_nowhere(fake: FakeLlm, tmp_path: Path, echo: dict,
                                                       caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for transport in ("httpcore", "httpcore2"):  # Their debug log prints what a server sends, headers and all.
        caplog.set_level(logging.INFO, transport)
    fake.say(**echo).say(**echo)
    file = tmp_path / "credentials.toml"
    file.write_text(f'[MY_KEY]\nkey = "{CANARY}"\nbase_urls = ["{fake.base_url}"]', encoding="utf-8")
    file.chmod(0o600)
    chat = ChatClient(llm=LanguageModel(base_url=fake.base_url, model="fake-model", credential="MY_KEY"),
                      credentials=CredentialStore(file), pause=0.01)
    cache = tmp_path / "answers"
    try:
        seen = repr(write(REQUEST, chat, AnswerCache(cache)))
    except AtelierError as error:
        seen = traceback.format_exc()
        assert error.__cause__ is error.__context__ is None, "the package's error holds the request and its headers"
    assert fake.requests[0].headers["authorization"] == f"Bearer {CANARY}"
    seen += repr(chat) + caplog.text + "".join(str(vars(record)) for record in caplog.records)
    seen += "".join(file.read_text(encoding="utf-8") + file.name for file in cache.glob("*"))
    assert CANARY[:12] not in seen and CANARY[-9:] not in seen


# Art prompts --------------------------------------------------------------------------------------------------------

def art(*entries: tuple[str, str, str]) -> str:
    return json.dumps({"prompts": [dict(zip(("category", "subject", "prompt"), e, strict=True)) for e in entries]})


def test_art_prompts_come_by_category_without_repeats(fake: FakeLlm) -> None:
    found = written_prompts(ArtRequest(60, ("animal", "space")), client(fake))
    assert [sum(p.category == c for p in found.prompts) for c in ("animal", "space")] == [30, 30]
    assert len({p.text for p in found.prompts}) == 60 and len(fake.requests) == 3


def test_art_prompts_are_one_to_so_many() -> None:
    assert ArtRequest(1).shares()[CATEGORIES[0]] == sum(ArtRequest(1).shares().values()) == 1
    assert ArtRequest(MOST_PROMPTS).count == MOST_PROMPTS
    for count in (0, MOST_PROMPTS + 1):
        with pytest.raises(AtelierError, match=f"count of prompts is {count}"):
            ArtRequest(count)


def test_repeats_are_asked_for_again(fake: FakeLlm) -> None:
    fake.say(art(("animal", "snow leopard", "a snow leopard in falling snow, oil painting"),
                 ("animal", "leopards", "leopards on a sunny rock, photograph in warm light"),
                 ("animal", "ice cat", "snow leopard in falling snow, oil painting, detailed")))
    fake.say(art(("animal", "hummingbird", "hummingbird at an orchid, macro photograph"),
                 ("space", "comet", "comet over mountains, which nobody asked for")))
    fake.say(art(("animal", "otter", "otter floating in kelp, watercolour")))
    found = written_prompts(ArtRequest(3, ("animal",)), client(fake))
    assert {p.subject for p in found.prompts} == {"snow leopard", "hummingbird", "otter"}
    assert "snow leopard, hummingbird" in fake.requests[2].body["messages"][-1]["content"]


@pytest.mark.parametrize("bad", ["{}", "[]", '"a cat"', '["a cat"]', '[{"subject": "a cat"}, 7]'])
def test_art_prompts_that_are_no_list_of_objects_are_asked_for_again(fake: FakeLlm, bad: str) -> None:
    fake.say(f'{{"prompts": {bad}}}').say(art(("animal", "otter", "otter floating in kelp, watercolour")))
    assert [p.subject for p in written_prompts(ArtRequest(1, ("animal",)), client(fake)).prompts] == ["otter"]
    assert "cannot be used" in fake.requests[1].body["messages"][-1]["content"]


def test_a_model_that_repeats_itself_is_an_error_or_filled_offline(fake: FakeLlm) -> None:
    same = art(("animal", "snow leopard", "a snow leopard in falling snow"))
    for _ in range(8):
        fake.say(same)
    with pytest.raises(AtelierError, match="repeats itself: it gave 1 different prompts of 4"):
        written_prompts(ArtRequest(4, ("animal",)), client(fake))
    found = written_prompts(ArtRequest(4, ("animal",)), client(fake), fall_back=True)
    assert len({p.subject for p in found.prompts}) == 4
    assert "(1) and the offline writer (3), because: fake-model repeats itself" in found.source


def test_categories_are_taken_in_the_plural_and_with_other_words(fake: FakeLlm) -> None:
    fake.say(art(("Animals", "otter", "otter floating in kelp, watercolour"),
                 ("abstract art", "spiral", "red spiral on black, screen print"), ("food", "soup", "a soup in a bowl")))
    found = written_prompts(ArtRequest(2, ("animal", "abstract")), client(fake))
    assert {(p.category, p.subject) for p in found.prompts} == {("animal", "otter"), ("abstract", "spiral")}
    assert len(fake.requests) == 1


def test_a_model_with_categories_of_its_own_is_told_so(fake: FakeLlm) -> None:
    for _ in range(3):
        fake.say(art(("food", "soup", "a soup in a bowl, oil"), ("toys", "robot", "a tin robot, photograph")))
    with pytest.raises(AtelierError, match="gave no prompt of the categories animal, space, but of food, toys"):
        written_prompts(ArtRequest(4, ("animal", "space")), client(fake))


def test_a_fruitless_answer_is_not_taken_from_the_cache_again(fake: FakeLlm, tmp_path: Path) -> None:
    leopard = ("animal", "snow leopard", "a snow leopard in falling snow")
    fake.say(art(leopard)).say(art(leopard)).say(art(("animal", "otter", "otter floating in kelp, watercolour")))
    found = written_prompts(ArtRequest(2, ("animal",)), client(fake), AnswerCache(tmp_path))
    assert {p.subject for p in found.prompts} == {"snow leopard", "otter"} and len(fake.requests) == 3


def test_the_offline_writers_reason_ends_without_a_full_stop(fake: FakeLlm) -> None:
    """The sentence that it stands in goes on."""
    fake.say("nonsense").say("nonsense").say("nonsense").say("nonsense")
    assert write(REQUEST, client(fake), fall_back=True).source.endswith("asking again did not help")
    assert written_prompts(ArtRequest(2), client(fake), fall_back=True).source.endswith("asking again did not help")


def test_art_prompts_are_cached_whole(fake: FakeLlm, tmp_path: Path) -> None:
    first = written_prompts(ArtRequest(30), client(fake), AnswerCache(tmp_path))
    asked = len(fake.requests)
    again = written_prompts(ArtRequest(30), client(fake), AnswerCache(tmp_path))
    assert again.prompts == first.prompts and len(fake.requests) == asked and again.cost.tokens_in == 0
