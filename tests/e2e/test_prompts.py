"""Prompts through the real host's queue, with a language model that answers well, badly, or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kit.fake_llm import GOOD, FakeLlm
from kit.graphs import Graph
from kit.host import Host, Result
from PIL import Image
from PIL.PngImagePlugin import PngInfo

pytestmark = pytest.mark.host

CANARY = "sk-canary-5d0c7e9b31f8464a-do-not-show"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeLlm]:
    with FakeLlm() as fake:
        yield fake


@pytest.fixture
def fake(server: FakeLlm, host: Host) -> FakeLlm:
    """The server, and its key in the user's folder."""
    server.requests.clear()
    server.turns.clear()
    server.given_up.clear()
    file = host.base / "user" / "atelier" / "credentials.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'[MY_KEY]\nkey = "{CANARY}"\nbase_urls = ["{server.base_url}"]\n', encoding="utf-8")
    file.chmod(0o600)
    return server


def graph(base_url: str, seed: int, **write: Any) -> Graph:
    return Graph(
        llm=("AtelierLLM", {"endpoint": "custom", "base_url": base_url, "model": "fake-model", "credential": "MY_KEY"}),
        write=("AtelierWritePrompt", {"llm": ["llm", 0], "seed": seed, **write}),
        image=("EmptyImage", {"width": 64, "height": 64}),
        save=("SaveImage", {"images": ["image", 0], "filename_prefix": ["write", 2]}))


def queue(host: Host, made: Graph) -> Result:
    return host.queue(made.fill(host), timeout=120)


def test_one_question_gives_prompt_negative_and_title_and_is_not_repeated(host: Host, fake: FakeLlm) -> None:
    result = queue(host, graph(fake.base_url, 1, example_set="sdxl", form="sentences"))
    assert result.status == "success", result.error
    shown = result.text("write")
    assert GOOD["positive"] in shown and GOOD["negative"] in shown and "100 tokens sent, 50 received" in shown
    assert result.outputs["save"]["images"][0]["filename"].startswith(GOOD["title"])
    assert len(fake.requests) == 1 and len(fake.requests[0].body["messages"]) > 3
    # Another widget, so that the host runs the node again, and the same question.
    again = queue(host, graph(fake.base_url, 1, example_set="sdxl", form="sentences", on_error="offline"))
    assert "write" in again.ran() and "from the cache" in again.text("write") and len(fake.requests) == 1


def test_pictures_one_likes_become_examples_for_the_writer(host: Host, fake: FakeLlm) -> None:
    picture = PngInfo()
    picture.add_text("parameters", "a fox, deep snow <lora:x:1>\nNegative prompt: fog\nSteps: 9, Seed: 1")
    Image.new("RGB", (8, 8)).save(host.base / "input" / "liked.png", pnginfo=picture)
    made = graph(fake.base_url, 11, idea="a hare", example_set=["add", 0])
    made.nodes["read"] = ("AtelierReadPrompt", {"image": "liked.png"})
    made.nodes["add"] = ("AtelierAddPromptExample", {"positive": ["read", 0], "negative": ["read", 1],
                                                     "name": "größer"})
    for _ in range(2):  # the second time everything is there already
        result = queue(host, made)
        assert result.status == "success", result.error
        made.change("add", idea="a red fox")
    assert result.text("add") == "größer: 1 example, tags"
    request, = fake.requests
    assert [message["content"] for message in request.body["messages"][1:]] == [
        "a fox", json.dumps({"positive": "a fox, deep snow", "negative": "fog", "title": "A fox"}), "a hare"]
    reserved = queue(host, made.change("add", name="none"))
    assert reserved.status == "rejected" and "'none' cannot be the name" in reserved.error


def test_a_failure_stops_the_graph_or_is_written_offline(host: Host, fake: FakeLlm) -> None:
    for _ in range(2):
        fake.say(status=401, error={"error": {"message": "wrong key"}})
    failed = queue(host, graph(fake.base_url, 2))
    assert failed.status == "error" and "wrong key" in failed.error and "MY_KEY" in failed.error
    result = queue(host, graph(fake.base_url, 2, on_error="offline"))
    assert result.status == "success", result.error
    assert "By the offline writer, because: " in result.text("write")
    assert result.outputs["save"]["images"][0]["filename"].startswith("A Cat wearing Neon-glasses")


def test_interrupt_while_the_model_thinks(host: Host, fake: FakeLlm) -> None:
    def cancel() -> None:
        while not fake.requests and not done.wait(0.05):
            pass
        host.interrupt()

    fake.say(delay=120)
    done, thread = threading.Event(), threading.Thread(target=cancel)
    thread.start()
    try:
        result = queue(host, graph(fake.base_url, 3))
    finally:
        done.set()
        thread.join()
    assert result.status == "interrupted" and fake.given_up.wait(60)


def test_a_stranger_cannot_redirect_a_key(host: Host, fake: FakeLlm) -> None:
    with FakeLlm() as evil:
        result = queue(host, graph(evil.base_url, 4))
        assert result.status == "error" and "MY_KEY may not be sent to" in result.error
        other = graph(evil.base_url, 4).change("llm", credential="OPENAI_API_KEY")
        assert "may not be sent" in queue(host, other).error
        assert evil.requests == []


def test_names_that_this_machine_does_not_list_are_told_at_the_run(host: Host, fake: FakeLlm) -> None:
    result = queue(host, graph(fake.base_url, 5).change("llm", credential="SOMEONE_ELSES_KEY"))
    assert result.status == "error" and "SOMEONE_ELSES_KEY may not be sent" in result.error


def test_art_prompts_are_a_list_and_shown(host: Host, fake: FakeLlm) -> None:
    made = Graph(art=("AtelierRandomArtPrompts", {"count": 5, "categories": "animal, Space", "seed": 3}),
                 show=("PreviewAny", {"source": ["art", 0]}))
    result = queue(host, made)
    assert result.status == "success", result.error
    prompts = result.outputs["show"]["text"]
    assert len(set(prompts)) == 5 and all(prompt in result.text("art") for prompt in prompts)
    wrong = queue(host, made.change("art", categories="animal, dogs"))
    assert wrong.status == "error" and "dogs" in wrong.error


def test_a_language_model_writes_art_prompts_for_the_categories(host: Host, fake: FakeLlm) -> None:
    made = Graph(
        llm=("AtelierLLM", {"endpoint": "custom", "base_url": fake.base_url, "model": "fake-model",
                            "credential": "MY_KEY"}),
        art=("AtelierRandomArtPrompts", {"count": 5, "categories": "animal, Space", "seed": 4, "llm": ["llm", 0]}),
        show=("PreviewAny", {"source": ["art", 0]}))
    # One of the first answer's subjects comes twice, so that one more prompt is asked for.
    first = [("animal", "red fox", "snow"), ("animal", "heron", "reeds"), ("animal", "red foxes", "fog"),
             ("space", "comet", "ice fields"), ("space", "ringed planet", "dust")]
    fake.say(json.dumps({"prompts": [{"category": category, "subject": subject, "prompt": f"{subject} in {place}"}
                                     for category, subject, place in first]}))
    result = queue(host, made)
    assert result.status == "success", result.error
    prompts = result.outputs["show"]["text"]
    assert len(set(prompts)) == 5 and {"red fox in snow", "comet in ice fields"} <= set(prompts)
    assert "red foxes in fog" not in prompts
    shown = result.text("art")
    assert all(prompt in shown for prompt in prompts) and "By fake-model" in shown and "tokens sent" in shown
    assert [r.headers["authorization"] for r in fake.requests] == [f"Bearer {CANARY}"] * 2
    assert "red fox" in json.dumps(fake.requests[1].body), "what is taken is told"
    # Another widget, so that the host runs the node again: answered from the cache, and by the word lists.
    again = queue(host, made.change("art", on_error="offline"))
    assert again.outputs["show"]["text"] == prompts and len(fake.requests) == 2
    for _ in range(2):
        fake.say(status=401, error={"error": {"message": "wrong key"}})
    offline = queue(host, made.change("art", seed=5))
    assert offline.status == "success" and "the offline writer (5), because: " in offline.text("art")
    assert "wrong key" in offline.text("art") and len(set(offline.outputs["show"]["text"])) == 5


def test_own_example_sets_are_listed_and_read_again(host: Host, fake: FakeLlm) -> None:
    folder = host.base / "user" / "atelier" / "examples"
    folder.mkdir(parents=True, exist_ok=True)

    def write_set(positive: str) -> None:
        (folder / "my model.toml").write_text(f'form = "tags"\n[[example]]\nidea = "i"\npositive = "{positive}"\n'
                                              f'title = "t"\n', encoding="utf-8")

    write_set("first version")
    info = host.get_json("/object_info/AtelierWritePrompt")["AtelierWritePrompt"]
    assert "my model" in str(info["input"]["required"]["example_set"])
    queue(host, graph(fake.base_url, 6, example_set="my model"))
    write_set("second version")
    queue(host, graph(fake.base_url, 6, example_set="my model"))
    assert ["second" in json.dumps(r.body) for r in fake.requests] == [False, True]


def test_a_key_leaves_no_trace(host: Host, fake: FakeLlm) -> None:
    """A key in the credentials file, and a server that echoes it wherever it can."""
    fake.say(json.dumps({**GOOD, "positive": f"a cat, {CANARY}", "title": f"Cat {CANARY[:20]}"}))
    fake.say(status=401, error={"error": {"message": f"Incorrect API key provided: {CANARY}"}})
    fake.say(status=401, error={"error": {"message": f"Incorrect API key provided: {CANARY}"}})
    results = [queue(host, graph(fake.base_url, 7)), queue(host, graph(fake.base_url, 8)),
               queue(host, graph(fake.base_url, 9, on_error="offline"))]
    assert [r.status for r in results] == ["success", "error", "success"]
    assert all(r.headers["authorization"] == f"Bearer {CANARY}" for r in fake.requests)
    names = set()
    for name, content in places(host, results):
        names.add(name)
        assert CANARY[:12].encode() not in content and CANARY[-12:].encode() not in content, name
    assert any(name.endswith(".png") for name in names) and any("answers" in name for name in names)


def places(host: Host, results: list[Result]) -> Iterator[tuple[str, bytes]]:
    """Wherever a key could stand, a piece at a time: the models that other tests left would fill the memory."""
    yield "results", repr([(r.error, r.events, r.outputs) for r in results]).encode()
    yield "log", host.log().encode()
    for path in ("/history", "/object_info", "/queue", "/settings", "/internal/logs"):
        yield path, host.get(path)
    for file in host.base.rglob("*"):
        if file.is_file() and file.name != "credentials.toml" and "custom_nodes" not in file.parts:
            with file.open("rb") as stream:
                end = b""
                while piece := stream.read(1 << 20):
                    yield str(file), end + piece  # a key may lie across two pieces
                    end = piece[-len(CANARY):]
