"""The chat client, through the real `openai` package, against a server that misbehaves."""

from __future__ import annotations

import asyncio
import email.utils
import json
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from kit.fake_llm import GOOD, FakeLlm

from atelier.errors import AtelierError
from atelier.progress import Interrupted, Progress
from atelier.prompts import problem
from atelier.prompts.client import PLACEHOLDER, ChatClient
from atelier.prompts.credentials import ANONYMOUS, CredentialStore
from atelier.prompts.endpoints import LanguageModel

HELLO = [{"role": "user", "content": "hello"}]


def client(fake: FakeLlm, **settings: object) -> ChatClient:
    return ChatClient(llm=LanguageModel(base_url=fake.base_url, model="fake-model", **settings), pause=0.01)


def test_answer_usage_and_request(fake: FakeLlm) -> None:
    reply = client(fake, price_in=2.0, price_out=10.0, temperature=0.3).ask(HELLO, seed=2**40 + 5)
    assert json.loads(reply.text) == GOOD
    assert (reply.usage.tokens_in, reply.usage.tokens_out) == (100, 50)
    assert reply.usage.cost == pytest.approx((100 * 2 + 50 * 10) / 1e6)
    sent = fake.requests[0]
    assert sent.path == "/v1/chat/completions"
    assert sent.body == {"model": "fake-model", "messages": HELLO, "temperature": 0.3, "seed": 5, "max_tokens": 4000}


def test_cost_is_the_services_own_figure_where_it_gives_one(fake: FakeLlm) -> None:
    fake.say("x", usage={"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.25})
    fake.say("x", usage={})
    fake.say("x", usage={"prompt_tokens": 1_000_000, "completion_tokens": 0})
    chat = client(fake, price_in=2.0)
    assert [chat.ask(HELLO, 0).usage.cost for _ in range(3)] == [0.25, None, 2.0]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_temporary_errors_are_retried(fake: FakeLlm, status: int) -> None:
    fake.say(status=status, error={"error": {"message": "busy"}}).say("done")
    assert client(fake).ask(HELLO, 0).text == "done"
    assert len(fake.requests) == 2


def test_gives_up_after_four_tries(fake: FakeLlm) -> None:
    for _ in range(9):
        fake.say(status=500, error={"error": {"message": "out of order"}})
    with pytest.raises(AtelierError, match=r"answered 500: .*out of order"):
        client(fake).ask(HELLO, 0)
    assert len(fake.requests) == 4


def test_each_pause_is_twice_the_one_before(fake: FakeLlm, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr("atelier.prompts.client.asyncio.sleep", noted)
    for _ in range(9):
        fake.say(status=500, error={"error": {"message": "out of order"}})
    with pytest.raises(AtelierError, match="answered 500"):
        client(fake).ask(HELLO, 0)
    # Up to a quarter more or less, so that programs that were refused together do not come back together.
    assert [seconds for seconds in pauses if seconds] == [pytest.approx(0.01 * 2**i, rel=0.25) for i in range(3)]


def test_waits_as_long_as_the_server_says() -> None:
    def wait(**headers: str) -> float | None:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        error = SimpleNamespace(status_code=429, message="slow down", body=None, code=None, type=None, param=None,
                                response=SimpleNamespace(headers=names))
        return problem.seconds_to_wait(problem.read(error, ANONYMOUS), backoff=0.7)

    soon = email.utils.format_datetime(datetime.now(timezone.utc) + timedelta(seconds=55), usegmt=True)
    assert wait(retry_after="2.5") == 2.5 and wait(retry_after_ms="250") == 0.25
    assert 10 < (wait(retry_after=soon) or 0) <= 55
    nowhere = soon.replace("GMT", "-0000")  # a date of no zone is one of UTC
    assert 10 < (wait(retry_after=nowhere) or 0) <= 55
    assert wait(retry_after="Mon, 01 Jan 2001 00:00:00 GMT") == 0.0
    assert wait(retry_after="60") == 60
    assert wait() == wait(retry_after="soon") == 0.7
    assert wait(retry_after="61") is None


def test_a_long_retry_after_is_reported_instead_of_waited_for(fake: FakeLlm) -> None:
    fake.say(status=429, error={"error": {"message": "slow down"}}, headers={"Retry-After": "3600"})
    with pytest.raises(AtelierError, match="asks to wait 3600 seconds"):
        client(fake).ask(HELLO, 0)
    assert len(fake.requests) == 1


@pytest.mark.parametrize(("status", "error"), [
    (429, {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}),
    (402, {"message": "Payment required"}),
    (429, {"message": "Insufficient credits"}),
])
def test_exhausted_quota_is_not_retried(fake: FakeLlm, status: int, error: dict[str, str]) -> None:
    fake.say(status=status, error={"error": error})
    with pytest.raises(AtelierError, match="quota is used up"):
        client(fake).ask(HELLO, 0)
    assert len(fake.requests) == 1


@pytest.mark.parametrize(("status", "advice"), [
    (401, "wants a key"), (403, "wants a key"), (404, "model's name"), (418, "settings"),
    (405, "model's name .*and the address"), *((status, "redirects to") for status in (301, 302, 303, 307, 308))])
@pytest.mark.parametrize("listed", [False, True], ids=["", "in a list"])
def test_refusals_are_explained_and_not_repeated(fake: FakeLlm, status: int, advice: str, listed: bool) -> None:
    """Gemini sends its errors in a list."""
    error = {"error": {"message": "no such thing"}}
    fake.say(status=status, error=[error] if listed else error, headers={"Location": "/elsewhere"})
    with pytest.raises(AtelierError, match=rf"answered {status}: no such thing\. .*{advice}"):
        client(fake).ask(HELLO, 0)
    assert len(fake.requests) == 1


def test_a_model_that_the_server_does_not_have_is_to_be_pulled(fake: FakeLlm) -> None:
    fake.say(status=404, error={"error": {"message": "model 'fake-model' not found"}})
    with pytest.raises(AtelierError, match=r"'fake-model' not found\. Check the model's name .*`ollama pull`"):
        client(fake).ask(HELLO, 0)


def test_a_key_that_may_not_go_there_stops_the_question(fake: FakeLlm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-canary")
    with pytest.raises(AtelierError, match="OPENAI_API_KEY may not be sent to"):
        ChatClient(llm=LanguageModel(base_url=fake.base_url, model="m", credential="OPENAI_API_KEY")).ask(HELLO, 0)
    assert fake.requests == []


@pytest.mark.parametrize(("name", "message"), [
    ("seed", "Unknown name \"seed\": Cannot find field."),
    ("temperature", "Unsupported value: 'temperature' does not support 0.8 with this model."),
])
def test_unsupported_parameters_are_left_out_from_then_on(fake: FakeLlm, name: str, message: str) -> None:
    fake.say(status=400, error={"error": {"message": message}})
    chat = client(fake)
    chat.ask(HELLO, 0)
    chat.ask(HELLO, 0)
    assert [name in request.body for request in fake.requests] == [True, False, False]


def test_the_token_limit_uses_the_servers_name_for_it(fake: FakeLlm) -> None:
    fake.say(status=400, error={"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this "
                                                     "model. Use 'max_completion_tokens' instead.",
                                          "param": "max_tokens", "code": "unsupported_parameter"}})
    client(fake).ask(HELLO, 0)
    assert fake.requests[1].body["max_completion_tokens"] == 4000 and "max_tokens" not in fake.requests[1].body


def test_a_validation_error_names_its_parameter_in_a_list(fake: FakeLlm) -> None:
    fake.say(status=422, error={"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]})
    client(fake).ask(HELLO, 0)
    assert "seed" not in fake.requests[1].body


def test_other_bad_requests_are_final(fake: FakeLlm) -> None:
    fake.say(status=400, error={"error": {"message": "messages too long"}})
    with pytest.raises(AtelierError, match=r"answered 400: .*messages too long"):
        client(fake).ask(HELLO, 0)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("message", ["response_format is not supported", "invalid schema for strict mode",
                                     "bad request", "JSON mode is not supported for this model.",
                                     "This model takes no structured output; say it in the messages."])
def test_a_refused_format_is_replaced_by_none(fake: FakeLlm, message: str) -> None:
    fake.say(status=400, error={"error": {"message": message}})
    client(fake).ask(HELLO, 0, {"type": "json_object"})
    assert ["response_format" in request.body for request in fake.requests] == [True, False]


@pytest.mark.parametrize("drop", ["before", "during"])
def test_a_dropped_connection_is_tried_again(fake: FakeLlm, drop: str) -> None:
    fake.say("lost", drop=drop).say("done")
    assert client(fake).ask(HELLO, 0).text == "done"


@pytest.mark.parametrize("drop", ["before", "during"])
def test_a_connection_that_is_always_dropped(fake: FakeLlm, drop: str) -> None:
    for _ in range(4):
        fake.say("lost", drop=drop)
    with pytest.raises(AtelierError, match=r"connection to .* failed"):
        client(fake).ask(HELLO, 0)


def test_a_refused_connection_is_explained() -> None:
    with FakeLlm() as fake:
        chat = client(fake)
    with pytest.raises(AtelierError, match=r"connection to .* failed.*Ollama"):
        chat.ask(HELLO, 0)


@pytest.mark.parametrize("address", ["http://127.0.0.1:{}/v1", "http://localhost:{}/v1"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "nonsense://x"])
def test_a_server_on_this_machine_is_asked_past_the_proxy(fake: FakeLlm, monkeypatch: pytest.MonkeyPatch, address: str,
                                                          proxy: str) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    llm = LanguageModel(base_url=address.format(fake.base_url.split(":")[2].split("/")[0]), model="m")
    assert ChatClient(llm=llm, pause=0.01).ask(HELLO, 0).text


@pytest.mark.parametrize(("name", "value"), [
    ("ALL_PROXY", "nonsense://127.0.0.1:9"), ("SSL_CERT_FILE", "no such file.pem"),
    ("HTTPS_PROXY", "http://127.0.0.1:port"),
])
def test_an_unusable_environment_is_explained(monkeypatch: pytest.MonkeyPatch, name: str, value: str
                                                               ) -> None:
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.lower(), raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(AtelierError, match=r"https://llm\.invalid/v1 could not be asked: .*HTTPS_PROXY") as caught:
        ChatClient(llm=LanguageModel(base_url="https://llm.invalid/v1", model="m"), pause=0.01).ask(HELLO, 0)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_proxy_that_needs_another_package_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(AtelierError, match=r"could not be asked: .*socksio"):
        ChatClient(llm=LanguageModel(base_url="https://llm.invalid/v1", model="m"), pause=0.01).ask(HELLO, 0)


def test_a_key_in_the_environments_proxy_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-in-a-proxy")
    monkeypatch.setenv("ALL_PROXY", "sk-canary-in-a-proxy://127.0.0.1:9")
    with pytest.raises(AtelierError, match="could not be asked") as caught:
        ChatClient(llm=LanguageModel(base_url="https://api.openai.com/v1", model="m", credential="OPENAI_API_KEY"),
                   pause=0.01).ask(HELLO, 0)
    assert "canary" not in str(caught.value) and "[OPENAI_API_KEY]" in str(caught.value)


def test_a_key_in_a_connections_error_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    import openai

    secret = "sk-canary-in-an-error"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    chat = ChatClient(llm=LanguageModel(base_url="https://api.openai.com/v1", model="m", credential="OPENAI_API_KEY"),
                      pause=0.001)

    async def lost(*_: object) -> bytes:
        raise openai.APIConnectionError(message=f"lost {secret}", request=None)  # type: ignore[arg-type]

    monkeypatch.setattr(chat, "_post", lost)
    with pytest.raises(AtelierError, match=r"connection to .* failed: lost \[OPENAI_API_KEY\]\.") as caught:
        chat.ask(HELLO, 0)
    assert "canary" not in str(caught.value) and caught.value.__context__ is None


def test_a_slow_server_is_abandoned_after_the_timeout(fake: FakeLlm) -> None:
    client(fake.say("done").say("late", delay=120)).ask(HELLO, 0)  # what is imported on the way takes a second, too
    with pytest.raises(AtelierError, match="did not answer within 1 seconds"):
        client(fake, timeout=1).ask(HELLO, 0)
    # Its connection is closed, and the server has noticed before the next test uses it.
    assert fake.given_up.wait(60), "the server still waits"
    assert len(fake.requests) == 2


def test_interrupt_while_waiting_closes_the_connection(fake: FakeLlm) -> None:
    class Impatient(Progress):
        def check(self) -> None:
            if fake.requests:
                raise Interrupted

    fake.say("late", delay=120)
    chat = ChatClient(llm=LanguageModel(base_url=fake.base_url, model="m"), progress=Impatient())
    with pytest.raises(Interrupted):
        chat.ask(HELLO, 0)
    assert fake.given_up.wait(60), "the server still waits"


def test_interrupt_between_two_tries(fake: FakeLlm) -> None:
    class Impatient(Progress):
        def check(self) -> None:
            if fake.requests:
                raise Interrupted

    fake.say(status=429, error={"error": {"message": "later"}}, headers={"Retry-After": "50"})
    with pytest.raises(Interrupted):
        ChatClient(llm=LanguageModel(base_url=fake.base_url, model="m"), progress=Impatient()).ask(HELLO, 0)


def test_works_inside_a_running_event_loop(fake: FakeLlm) -> None:
    import asyncio

    async def as_the_host_does() -> str:
        return client(fake.say("done")).ask(HELLO, 0).text

    assert asyncio.run(as_the_host_does()) == "done"


@pytest.mark.parametrize("body", [
    b"", b"<html>hello</html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": 3}]}', b'{"choices": [{}]}',
    b'{"choices": [{"message": {"content": {"a": 1}}}]}', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_completion(fake: FakeLlm, body: bytes) -> None:
    fake.say(error=body)
    with pytest.raises(AtelierError, match="no chat completion"):
        client(fake).ask(HELLO, 0)


def test_an_endless_body_is_cut_off(fake: FakeLlm) -> None:
    fake.say(endless=True)
    with pytest.raises(AtelierError, match="longer than 2000 kB"):
        client(fake).ask(HELLO, 0)
    assert fake.given_up.wait(60)


def test_a_refusal_is_reported(fake: FakeLlm) -> None:
    fake.say(refusal="I cannot help with that.")
    with pytest.raises(AtelierError, match="refused: I cannot help"):
        client(fake).ask(HELLO, 0)


def test_content_in_parts(fake: FakeLlm) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    fake.say(error={"choices": [{"message": {"content": parts}}]})
    assert client(fake).ask(HELLO, 0).text == "ab"


def test_only_the_chosen_key_leaves_the_machine(fake: FakeLlm, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """The package reads keys, organisation and headers from the environment; this server must get none of them."""
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "canary-of-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: canary-of-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/elsewhere")
    client(fake).ask(HELLO, 0)
    file = tmp_path / "credentials.toml"
    file.write_text(f'[MINE]\nkey = "my-own-key-123"\nbase_urls = ["{fake.base_url}"]', encoding="utf-8")
    file.chmod(0o600)
    ChatClient(llm=LanguageModel(base_url=fake.base_url, model="m", credential="MINE"),
               credentials=CredentialStore(file)).ask(HELLO, 0)
    without, with_key = fake.requests
    assert "authorization" not in without.headers
    assert with_key.headers["authorization"] == "Bearer my-own-key-123"
    for request in fake.requests:
        assert "canary" not in str(request.headers) and PLACEHOLDER not in str(request.headers)


def test_the_waiting_thread_ends(fake: FakeLlm) -> None:
    client(fake).ask(HELLO, 0)
    end = time.monotonic() + 60
    while any(t.name.startswith("atelier-wait") for t in threading.enumerate()) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(t.name.startswith("atelier-wait") for t in threading.enumerate())
