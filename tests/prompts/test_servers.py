"""Servers that refuse a part of the request, answer in other places, or are not ready yet."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from kit.fake_llm import GOOD, FakeLlm, Turn, refusal, streamed
from kit.fake_vision import number_in, numbered_picture, pictures_in

from atelier.errors import AtelierError
from atelier.progress import Progress
from atelier.prompts.client import ChatClient
from atelier.prompts.concessions import MOST_CHANGES, Change, concession
from atelier.prompts.endpoints import LanguageModel
from atelier.prompts.examples import ExampleLibrary
from atelier.prompts.problem import Problem
from atelier.prompts.request import PromptRequest, WrittenPrompt
from atelier.prompts.write import write

REQUEST = PromptRequest(idea="a cat wearing neon-glasses", seed=3)
HELLO = [{"role": "user", "content": "hello"}]


def client(fake: FakeLlm, progress: Progress | None = None, **settings: Any) -> ChatClient:
    return ChatClient(llm=LanguageModel(base_url=fake.base_url, model="fake-model", **settings), pause=0.01,
                      progress=progress or Progress())


def good(written: WrittenPrompt) -> bool:
    return (written.positive, written.negative, written.title) == tuple(GOOD.values())


# What is refused ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("problem", [
    refusal("System role not supported"),  # Gemma's template in vLLM
    refusal("Conversation roles must alternate user/assistant/user/assistant/..."),  # Mistral 7B
    refusal("Error rendering prompt with jinja template: \"Only user and assistant roles are supported!\"", 500),
    refusal("Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            param="messages[0].role", code="unsupported_value"),  # o1-mini
    refusal("Provider returned error", metadata={"raw": '{"error": {"message": "Developer instruction is not enabled '
                                                       'for models/gemma-3-4b-it"}}'}),  # OpenRouter
])
def test_a_model_without_a_system_role_gets_its_rules_in_the_first_message(fake: FakeLlm, problem: Turn) -> None:
    def no_system(body: dict[str, Any]) -> Turn | None:
        return problem if body["messages"][0]["role"] == "system" else None

    fake.refuses = no_system
    examples = ExampleLibrary().get("photoreal-sd15")
    assert good(write(PromptRequest(idea="a lighthouse", examples=examples), client(fake)))
    refused, sent = (request.body for request in fake.requests)
    roles = [message["role"] for message in sent["messages"]]
    assert roles == [*["user", "assistant"] * len(examples.examples), "user"]
    system, first = (refused["messages"][index]["content"] for index in (0, 1))
    assert sent["messages"][0]["content"] == f"{system}\n\n{first}"
    assert {**refused, "messages": sent["messages"][1:]} == {**sent, "messages": refused["messages"][2:]}


def test_what_a_server_refuses_is_not_sent_to_it_again(fake: FakeLlm) -> None:
    fake.refuses = lambda body: refusal("no system role") if body["messages"][0]["role"] == "system" else None
    chat = client(fake)
    for seed in range(3):
        write(PromptRequest(idea="a cat", seed=seed), chat)
    assert len(fake.requests) == 4


@pytest.mark.parametrize(("message", "lowered"), [
    ("This model's maximum context length is 4096 tokens. However, you requested 4310 tokens (310 in the messages, "
     "4000 in the completion). Please reduce the length of the messages or completion.", 3786),
    ("'max_tokens' or 'max_completion_tokens' is too large: 4000. This model's maximum context length is 4096 tokens "
     "and your request has 310 input tokens (4000 > 4096 - 310).", 3786),
    ("Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 4310 "
     "tokens: 310 tokens from the input messages and 4000 tokens for the completion.", 3786),
    ("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 310 `inputs` tokens and 4000 `max_new_tokens`", 3786),
    ("max_tokens is too large: 4000. This model supports at most 2,048 completion tokens.", 2048),
    ("Invalid max_tokens value, the valid range of max_tokens is [1, 2048]", 2048),
    ("the request exceeds the available context size, try increasing it (tokens)", 2000),
])
def test_a_long_answer_that_does_not_fit_is_asked_for_shorter_and_told(fake: FakeLlm, message: str, lowered: int
                                                                       ) -> None:
    fake.refuses = lambda body: refusal(message) if body["max_tokens"] == 4000 else None
    written = write(REQUEST, client(fake))
    assert good(written) and [request.body["max_tokens"] for request in fake.requests] == [4000, lowered]
    assert written.source.endswith(f" (max_tokens lowered from 4000 to {lowered})")
    assert {**fake.requests[0].body, "max_tokens": lowered} == fake.requests[1].body


def test_an_answer_cut_at_a_lowered_limit_names_that_one(fake: FakeLlm) -> None:
    fake.refuses = lambda body: refusal("at most 2048 tokens") if body["max_tokens"] > 2048 else Turn(
        text='{"positive": "a c', finish="length")
    with pytest.raises(AtelierError, match="cut at 2048 tokens"):
        write(REQUEST, client(fake))


def test_a_prompt_that_does_not_fit_at_all_is_told_as_that(fake: FakeLlm) -> None:
    fake.refuses = lambda body: refusal("This model's maximum context length is 512 tokens. However, your prompt "
                                        "contains at least 513 input tokens.")
    with pytest.raises(AtelierError, match="longer context"):
        write(REQUEST, client(fake))
    assert len(fake.requests) < 10


def test_a_server_that_refuses_both_names_of_the_limit_gets_none(fake: FakeLlm) -> None:
    def no_limit(body: dict[str, Any]) -> Turn | None:
        name = next((name for name in body if name.startswith("max_")), None)
        return refusal(f"Unsupported parameter: '{name}'") if name else None

    fake.refuses = no_limit
    assert client(fake).ask(HELLO, 0).text
    assert [[name for name in request.body if name.startswith("max_")] for request in fake.requests] == [
        ["max_tokens"], ["max_completion_tokens"], []]


def test_rules_without_a_question_become_the_question(fake: FakeLlm) -> None:
    """Of a request that has nothing but them, or that goes on from an answer."""
    fake.refuses = lambda body: refusal("no system role") if body["messages"][0]["role"] == "system" else None
    for others in ([], [{"role": "assistant", "content": "yes?"}, {"role": "user", "content": "hello"}]):
        fake.requests.clear()
        assert client(fake).ask([{"role": "system", "content": "Be brief."}, *others], 0).text
        assert fake.requests[-1].body["messages"] == [{"role": "user", "content": "Be brief."}, *others]


def test_a_refused_role_is_told_where_there_are_no_rules_to_move(fake: FakeLlm) -> None:
    fake.refuses = lambda body: refusal("unexpected role")
    with pytest.raises(AtelierError, match=r"answered 400: unexpected role\. "):
        client(fake).ask(HELLO, 0)
    assert len(fake.requests) == 1


@pytest.mark.parametrize(("parameter", "asked"), [("messages[0].content", 1), ("model", 1), ("text.format", 3)])
def test_the_format_stays_where_the_server_minds_something_else(fake: FakeLlm, parameter: str, asked: int) -> None:
    """Step by step to none where nothing else is named."""
    fake.refuses = lambda body: refusal("cannot do that", param=parameter) if "response_format" in body else None
    chat = client(fake)
    wanted = {"type": "json_schema", "json_schema": {"name": "prompt", "schema": {}}}
    if asked == 1:
        with pytest.raises(AtelierError, match="cannot do that"):
            chat.ask(HELLO, 0, wanted)
    else:
        assert chat.ask(HELLO, 0, wanted).text
    assert len(fake.requests) == asked


def test_a_server_that_minds_everything_is_not_given_in_to_without_end() -> None:
    problem = Problem(status=400, text="no system role", shown="no system role", parameter="")
    sent = {"messages": [{"role": "system", "content": "Be brief."}, *HELLO]}
    made = [Change("parameter", "", dict)] * MOST_CHANGES
    assert concession(problem, sent, made) is None
    change = concession(problem, sent, made[1:])
    assert change is not None and change.what == "system text in the first message"


# Where the answer is ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("message", [
    {"content": None, "reasoning_content": f"Let me think. {json.dumps(GOOD)}"},
    {"content": "", "reasoning": json.dumps(GOOD)},
    {"content": None, "tool_calls": [{"id": "1", "type": "function", "function": {
        "name": "prompt", "arguments": json.dumps(GOOD)}}]},
    {"content": "", "tool_calls": [{"function": {"name": "prompt", "arguments": GOOD}}]},
    {"content": None, "function_call": {"name": "prompt", "arguments": json.dumps(GOOD)}},
    {"content": json.dumps(GOOD), "reasoning_content": json.dumps({**GOOD, "positive": "a draft"})},
], ids=["reasoning_content", "reasoning", "tool call", "tool call as an object", "function call", "both"])
def test_the_answer_is_found_where_the_server_puts_it(fake: FakeLlm, message: dict[str, Any]) -> None:
    fake.say(message=message)
    assert good(write(REQUEST, client(fake))) and len(fake.requests) == 1


def test_thoughts_that_were_cut_are_no_answer(fake: FakeLlm) -> None:
    fake.say(message={"content": "", "reasoning_content": f"Perhaps {json.dumps({**GOOD, 'title': 'Draft'})}, but"},
             finish="length")
    assert good(write(REQUEST, client(fake))) and len(fake.requests) == 2


@pytest.mark.parametrize("name", ["content", "reasoning_content"])
def test_a_stream_that_nobody_asked_for_is_joined(fake: FakeLlm, name: str) -> None:
    text = json.dumps(GOOD)
    pieces = [{"role": "assistant", "content": ""}, *({name: text[i:i + 7]} for i in range(0, len(text), 7))]
    fake.say(error=streamed(pieces, usage={"prompt_tokens": 9, "completion_tokens": 8}))
    written = write(REQUEST, client(fake))
    assert good(written) and (written.cost.tokens_in, written.cost.tokens_out) == (9, 8)
    assert len(fake.requests) == 1


def test_a_tool_call_in_a_stream_is_joined(fake: FakeLlm) -> None:
    """The first call counts, whichever's pieces come first; some servers number none."""
    text, other = json.dumps(GOOD), json.dumps({**GOOD, "title": "Other"})
    for numbers in ({"index": 0}, {"index": None}, {}):
        pieces = [{"tool_calls": [{"index": 1, "function": {"arguments": other}}]},
                  {"tool_calls": [{**numbers, "function": {"name": "prompt", "arguments": None}}]},
                  *({"tool_calls": [{**numbers, "function": {"arguments": text[i:i + 9]}}]}
                    for i in range(0, len(text), 9))]
        fake.forget().say(error=streamed(pieces, finish="tool_calls"))
        assert good(write(REQUEST, client(fake))) and len(fake.requests) == 1


def test_a_stream_keeps_its_end_and_its_errors(fake: FakeLlm) -> None:
    fake.say(error=streamed([{"content": "half"}], finish="length"))
    assert client(fake).ask(HELLO, 0).cut
    fake.say(error=b'data: {"error": {"message": "no credits", "code": 402}}\n\n')
    with pytest.raises(AtelierError, match="quota is used up"):
        client(fake).ask(HELLO, 0)
    fake.say(error=b'data: {"choices": [{"error": {"message": "no credits left", "code": 402}}]}\n\n')
    with pytest.raises(AtelierError, match=r"answered 402: no credits left\. "):
        client(fake).ask(HELLO, 0)
    fake.say(error=b"data: [DONE]\n\n")
    with pytest.raises(AtelierError, match="no chat completion"):
        client(fake).ask(HELLO, 0)


# Errors in another form ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("error", [
    {"error": {"code": 429, "message": "Rate limited"}}, {"error": {"code": "502", "message": "Bad gateway"}},
    {"error": {"code": "rate_limit_exceeded", "message": "slow down"}},
    {"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "Up"}, "message": {"content": ""}}]},
])
def test_a_temporary_error_inside_an_answer_is_tried_again(fake: FakeLlm, error: dict[str, Any]) -> None:
    fake.say(error=error)
    assert json.loads(client(fake).ask(HELLO, 0).text) == GOOD and len(fake.requests) == 2


def test_an_exhausted_quota_inside_an_answer_is_told_at_once(fake: FakeLlm) -> None:
    fake.say(error={"error": {"code": 402, "message": "Insufficient credits"}})
    with pytest.raises(AtelierError, match=r"answered 402: Insufficient credits\. The account's quota is used up"):
        client(fake).ask(HELLO, 0)
    assert len(fake.requests) == 1


def test_an_error_without_a_status_is_told_with_its_words(fake: FakeLlm) -> None:
    fake.say(error={"error": "the graphics card fell out"})
    with pytest.raises(AtelierError, match=r"the graphics card fell out\. "):
        client(fake).ask(HELLO, 0)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("filtered", [
    refusal("The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please "
            "modify your prompt and retry.", param="prompt", code="content_filter"),
    refusal("openai: your input was flagged", 403), Turn(text="", finish="content_filter"),
    Turn(error={"choices": [{"finish_reason": "SAFETY", "index": 0}]}),
], ids=["Azure", "moderation", "finish_reason", "Gemini"])
def test_a_content_filter_is_told_as_that_and_asked_once(fake: FakeLlm, filtered: Turn) -> None:
    fake.refuses = lambda body: filtered
    with pytest.raises(AtelierError, match=r"^A content filter stopped .*\. Word the idea differently"):
        write(REQUEST, client(fake))
    assert len(fake.requests) == 1


@pytest.mark.parametrize("message", ["Loading model", "Model fake-model is currently loading"])
def test_a_model_that_is_being_loaded_is_waited_for_and_said(fake: FakeLlm, message: str) -> None:
    class Listening(Progress):
        def __init__(self) -> None:
            self.phases: list[str] = []

        def phase(self, name: str, total: int) -> None:
            self.phases.append(name)

    progress = Listening()
    for _ in range(15):  # more often than errors are tried again, and longer than the caller looks away
        fake.turns.append(refusal(message, 503))
    assert json.loads(client(fake, progress).ask(HELLO, 0).text) == GOOD
    assert len(fake.requests) == 16 and set(progress.phases) == {f"{fake.base_url[7:-3]} is loading fake-model"}


def test_a_model_that_never_loads_ends_with_the_timeout(fake: FakeLlm) -> None:
    fake.refuses = lambda body: refusal("Loading model", 503)
    with pytest.raises(AtelierError, match="still loading after 1 seconds: load it first"):
        client(fake, timeout=1).ask(HELLO, 0)
    fake.forget().refuses = lambda body: refusal("failed loading model", 503)
    with pytest.raises(AtelierError, match="asked several times"):
        client(fake).ask(HELLO, 0)
    assert len(fake.requests) == 4


# Addresses ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("typed", "instead"), [
    ("https://x.example/v1/chat/completions/", "https://x.example/v1"), ("http://h:1/v1/models", "http://h:1/v1"),
    ("http://h:1/v1/completions", "http://h:1/v1"), ("http://127.0.0.1:11434/api/chat", "http://127.0.0.1:11434/v1"),
])
def test_the_address_of_one_function_is_refused_with_the_services_own(typed: str, instead: str) -> None:
    with pytest.raises(AtelierError, match=rf"own address: {re.escape(instead)}$"):
        LanguageModel(base_url=typed, model="m")


def test_services_at_addresses_with_such_words_are_taken() -> None:
    for address in ("https://x.services.ai.azure.com/models", "http://127.0.0.1:3000/api", "https://x.example/api/v1"):
        assert LanguageModel(base_url=address, model="m").base_url == address


@pytest.mark.parametrize("status", [404, 405])
def test_an_address_without_v1_is_told_with_it(fake: FakeLlm, status: int) -> None:
    fake.refuses = lambda body: Turn(status=status, error=b"Not here")
    bare = fake.base_url.removesuffix("/v1")
    for typed in (bare, f"{bare}/api"):
        with pytest.raises(AtelierError, match=rf"answered {status}.* Type {re.escape(bare)}/v1 as the address"):
            ChatClient(llm=LanguageModel(base_url=typed, model="m")).ask(HELLO, 0)
    with pytest.raises(AtelierError, match=rf"answered {status}.* ends with /v1"):
        client(fake).ask(HELLO, 0)


@pytest.mark.parametrize(("location", "advice"), [
    ("https://secure.example/v1/chat/completions", r"redirects to \(https://secure.example/v1\);"),
    ("/openai/v1/chat/completions", r"redirects to \(http://127.0.0.1:\d+/openai/v1\);"),
    ("https://example.org/login?next=1", "redirects to; redirects"), ("", "redirects to; redirects"),
    ("https://user@example.org/v1/chat/completions", "redirects to; redirects"),
])
def test_a_redirect_names_the_address_to_type(fake: FakeLlm, location: str, advice: str) -> None:
    fake.say(status=301, error=b"Moved", headers={"Location": location})
    with pytest.raises(AtelierError, match=advice):
        client(fake).ask(HELLO, 0)


def test_a_servers_words_and_the_advice_are_two_sentences(fake: FakeLlm) -> None:
    for words, ended in (("out of order", "out of order. It"), ("Really?", "Really? It"), ("a. " * 200, "a.… It")):
        fake.forget().refuses = lambda body, words=words: refusal(words, 500)
        with pytest.raises(AtelierError) as caught:
            client(fake).ask(HELLO, 0)
        assert f"{ended} was asked several times" in str(caught.value)


# A reference picture ------------------------------------------------------------------------------------------------

def test_a_reference_picture_goes_with_the_idea_and_may_replace_it(fake: FakeLlm) -> None:
    for idea, told in (("at night", True), ("", False)):
        fake.forget()
        assert good(write(PromptRequest(idea=idea, picture=numbered_picture(7)), client(fake)))
        text, _picture = fake.requests[0].body["messages"][-1]["content"]
        assert text["text"].startswith("Write the prompt for a picture like this one")
        assert text["text"].endswith("\nat night") is told
        assert [number_in(picture) for picture in pictures_in(fake.requests[0].body)] == [7]


def test_the_offline_writer_says_that_it_cannot_see(fake: FakeLlm) -> None:
    fake.refuses = lambda body: refusal("wrong key", 401)
    request = PromptRequest(idea="", picture=numbered_picture(7))
    with pytest.raises(AtelierError, match=r"the offline writer cannot see \(.*wrong key"):
        write(request, client(fake), fall_back=True)
    assert write(PromptRequest(idea="a cat", picture=numbered_picture(7)), client(fake),
                 fall_back=True).positive.startswith("a cat, ")
