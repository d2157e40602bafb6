"""Captions of many pictures: each asked about once, in order, with its own file; and servers that will not have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from kit.fake_llm import FakeLlm, Turn, completion, refusal, streamed
from kit.fake_vision import FakeVision, description, numbered_picture, pictures_in, write_numbered

from atelier.captions.request import MOST_AT_ONCE, CaptionRequest, CaptionStyle, Existing
from atelier.captions.run import CaptionRun, CaptionWriter
from atelier.dataset.folder import FolderOptions, read_folder
from atelier.errors import AtelierError
from atelier.progress import Interrupted, Progress
from atelier.prompts.answer_cache import AnswerCache
from atelier.prompts.client import ChatClient
from atelier.prompts.credentials import CredentialStore
from atelier.prompts.endpoints import LanguageModel

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = "sk-secret-0123456789abcdef"


ANY = CaptionRequest()


def run(fake: FakeLlm, pictures: list[Path], request: CaptionRequest = ANY, **settings: Any) -> CaptionRun:
    llm = LanguageModel(base_url=fake.base_url, model="fake-model")
    return CaptionWriter(client=ChatClient(llm=llm, pause=0.01), request=request,
                         **{"progress": Progress(), **settings}).run(pictures)


def sidecars(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.txt"))}


def test_each_picture_gets_its_own_caption_in_order(fake: FakeVision, tmp_path: Path) -> None:
    pictures = write_numbered(tmp_path / "my pictures é", 40)
    result = run(fake, pictures, at_once=8)
    assert [item.caption for item in result.items] == [description(number) for number in range(40)]
    assert sidecars(tmp_path) == {f"{number:03}": description(number) + "\n" for number in range(40)}
    assert sorted(fake.seen()) == list(range(40))
    assert (result.count("model"), result.usage.tokens_in, result.usage.tokens_out) == (40, 4000, 2000)


def test_no_more_are_asked_at_a_time_than_allowed_and_the_first_alone(fake: FakeVision, tmp_path: Path) -> None:
    pictures = write_numbered(tmp_path, 12)
    fake.open.clear()
    results: list[CaptionRun] = []
    thread = threading.Thread(target=lambda: results.append(run(fake, pictures, at_once=3)))
    thread.start()
    assert fake.held.acquire(timeout=30)
    assert len(fake.requests) == 1
    fake.answer_held(1)
    for _ in range(3):
        assert fake.held.acquire(timeout=30)
    assert len(fake.requests) == 4
    fake.open.set()
    fake.answer_held(3)
    thread.join(timeout=30)
    assert [item.caption for item in results[0].items] == [description(number) for number in range(12)]


def test_captions_that_are_there_stay_and_are_not_asked_about(fake: FakeVision, tmp_path: Path) -> None:
    pictures = write_numbered(tmp_path, 5)
    (tmp_path / "000.txt").write_text("by hand", encoding="utf-8")
    (tmp_path / "001.caption").write_text("by hand, too", encoding="utf-8")
    (tmp_path / "002.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "003.png", "text": "in a table"}),
                                             encoding="utf-8")
    result = run(fake, pictures)
    assert [item.caption for item in result.items] == ["by hand", "by hand, too", description(2), "in a table",
                                                       description(4)]
    assert sidecars(tmp_path) == {"000": "by hand", "002": description(2) + "\n", "004": description(4) + "\n"}
    assert fake.seen() == [2, 4]
    run(fake, pictures, existing=Existing.REPLACE)
    assert list(sidecars(tmp_path)) == ["000", "001", "002", "003", "004"]
    assert sidecars(tmp_path)["000"] == description(0) + "\n"


def test_a_caption_that_appears_meanwhile_stays(fake: FakeVision, tmp_path: Path) -> None:
    pictures = write_numbered(tmp_path, 1)

    def written_meanwhile(body: dict[str, Any]) -> str:
        (tmp_path / "000.txt").write_text("by hand", encoding="utf-8")
        return json.dumps({"caption": "late"})

    fake.answers = written_meanwhile
    result = run(fake, pictures)
    assert (result.items[0].caption, result.items[0].source) == ("by hand", "file")
    assert sidecars(tmp_path) == {"000": "by hand"}


def test_two_pictures_of_one_name_are_refused_before_anything_is_asked(fake: FakeVision, tmp_path: Path) -> None:
    pictures = write_numbered(tmp_path, 1)
    numbered_picture(1).save(tmp_path / "000.bmp")
    with pytest.raises(AtelierError, match=r"000.png and 000.bmp .* share the caption file 000.txt"):
        run(fake, [*pictures, tmp_path / "000.bmp"])
    assert not fake.requests


def test_answers_come_from_the_cache(fake: FakeVision, tmp_path: Path) -> None:
    pictures = write_numbered(tmp_path / "a", 6)
    cache = AnswerCache(tmp_path / "answers")
    first = run(fake, pictures, cache=cache, files=False)
    again = run(fake, pictures, cache=cache, files=False)
    assert [item.caption for item in first.items] == [item.caption for item in again.items]
    assert (len(fake.requests), again.count("cache"), sidecars(tmp_path)) == (6, 6, {})


def test_the_style_and_the_rules_are_asked_for_and_kept(fake: FakeVision, tmp_path: Path) -> None:
    pictures = write_numbered(tmp_path, 1)
    fake.say(json.dumps({"caption": "1girl, photo of ohwx, hat, hat, a photograph"}))
    request = CaptionRequest(style=CaptionStyle.TAGS, trigger="ohwx", forbidden=("photo",), instruction="Name colours.")
    assert run(fake, pictures, request).items[0].caption == "ohwx, 1girl, hat, a photograph"
    rules = fake.requests[0].body["messages"][0]["content"]
    assert all(text in rules for text in ("booru", "'ohwx'", "Never use these words: photo.", "Name colours.",
                                          "below 75 tokens"))


def test_a_sentence_with_a_forbidden_word_goes_back_once_and_then_has_no_caption(fake: FakeVision, tmp_path: Path
                                                                                 ) -> None:
    pictures = write_numbered(tmp_path, 2)
    for text in ("A photo of a dog.", "A dog.", "A photo.", "Still a photo."):
        fake.say(json.dumps({"caption": text}))
    result = run(fake, pictures, CaptionRequest(forbidden=("photo",)), at_once=1)
    assert [item.caption for item in result.items] == ["A dog.", ""]
    assert "'photo', which must not be used" in result.items[1].failure
    assert sidecars(tmp_path) == {"000": "A dog.\n"}
    assert "which must not be used" in fake.requests[1].body["messages"][-1]["content"]


@pytest.mark.parametrize("text", ["A dog on a beach.", "Here is the caption: A dog on a beach.",
                                  "<think>a dog?</think>\nA dog on a beach.", '{"Caption": "A dog on a beach."}',
                                  '```json\n{"caption": "A dog on a beach."}\n```'])
def test_models_that_answer_in_prose_are_understood(fake: FakeVision, tmp_path: Path, text: str) -> None:
    pictures = write_numbered(tmp_path, 1)
    fake.say(text)
    assert run(fake, pictures).items[0].caption == "A dog on a beach."
    assert len(fake.requests) == 1


# What servers refuse ------------------------------------------------------------------------------------------------

def test_pictures_are_sent_as_jpeg_no_larger_than_needed(fake: FakeVision, tmp_path: Path) -> None:
    pictures = write_numbered(tmp_path, 1, size=(2000, 1000))
    run(fake, pictures)
    picture, = pictures_in(fake.requests[0].body)
    assert (picture.format, picture.size) == ("JPEG", (1024, 512))


@pytest.mark.parametrize("problem", [
    Turn(status=413, error=b"<html><h1>413 Request Entity Too Large</h1></html>"),
    refusal("Image size is 900 KB, it exceeds the maximum of 500 KB per image"),
    refusal("messages.0.content.1.image.source.base64: image exceeds 5 MB maximum", param="messages"),
    refusal("The model's maximum context length is exceeded; reduce the length of the input", code="context"),
])
def test_too_large_a_picture_is_scaled_down_and_asked_again(fake: FakeVision, tmp_path: Path, problem: Turn) -> None:
    pictures = write_numbered(tmp_path, 9, size=(1200, 900))
    fake.refuses = lambda body: problem if max(picture.width for picture in pictures_in(body)) > 256 else None
    result = run(fake, pictures, at_once=4)
    assert [item.caption for item in result.items] == [description(number) for number in range(9)]
    assert [picture.size for picture in pictures_in(fake.requests[-1].body)] == [(256, 192)]
    # What the first picture taught is not tried with the others.
    assert len(fake.requests) == 11
    assert fake.requests[0].body["max_tokens"] == fake.requests[-1].body["max_tokens"] == 4000


def test_a_picture_is_not_scaled_down_without_end(fake: FakeVision, tmp_path: Path) -> None:
    fake.largest = 20
    with pytest.raises(AtelierError, match="answered 413"):
        run(fake, write_numbered(tmp_path, 3, size=(1200, 900)))
    assert max(picture.width for picture in pictures_in(fake.requests[-1].body)) == 128
    assert sidecars(tmp_path) == {}


@pytest.mark.parametrize("message", [
    "This model only support stream mode, please enable the stream parameter to access the model.",
    "Non-streaming is not available: stream must be true", "parameter.enable_thinking only support stream call"])
def test_a_server_that_only_streams_is_asked_for_a_stream(fake: FakeVision, tmp_path: Path, message: str) -> None:
    def only_streams(body: dict[str, Any]) -> Turn | None:
        if not body.get("stream"):
            return refusal(message)
        text = completion(Turn(), body, fake.answers)["choices"][0]["message"]["content"]
        return Turn(error=streamed([{"content": text[:7]}, {"content": text[7:]}]))

    fake.refuses = only_streams
    result = run(fake, write_numbered(tmp_path, 3), at_once=2)
    assert [item.caption for item in result.items] == [description(number) for number in range(3)]
    assert len(fake.requests) == 4
    assert all("response_format" in request.body for request in fake.requests)


def test_a_model_without_a_system_role_gets_the_rules_before_the_picture(fake: FakeVision, tmp_path: Path) -> None:
    fake.refuses = lambda body: (refusal("System role not supported") if body["messages"][0]["role"] == "system"
                                 else None)
    run(fake, write_numbered(tmp_path, 1))
    message, = fake.requests[-1].body["messages"]
    assert [part["type"] for part in message["content"]] == ["text", "text", "image_url"]
    assert message["role"] == "user"
    assert message["content"][0]["text"].startswith("You describe pictures")


@pytest.mark.parametrize("problem", [
    refusal("Invalid content type. image_url is only supported by certain models.", param="messages.[1].content"),
    refusal("No endpoints found that support image input", 404),
    refusal("this model does not support image input"),
    refusal("model qwen is not a multimodal model"),
])
def test_a_model_that_cannot_see_is_told_after_one_question(fake: FakeVision, tmp_path: Path, problem: Turn) -> None:
    fake.refuses = lambda body: problem
    with pytest.raises(AtelierError, match="takes no pictures: choose one that sees"):
        run(fake, write_numbered(tmp_path, 5))
    assert len(fake.requests) == 1


def test_what_a_vision_model_refuses_of_the_format_is_left_out(fake: FakeVision, tmp_path: Path) -> None:
    fake.refuses = lambda body: (refusal("This vision model does not support response_format json_schema")
                                 if "response_format" in body else None)
    assert run(fake, write_numbered(tmp_path, 1)).items[0].caption == description(0)


def test_threads_whose_request_is_refused_together_change_it_once(fake: FakeVision, tmp_path: Path) -> None:
    """The rule for the system role may be used once only: the second thread must see the first one's change."""
    pictures = write_numbered(tmp_path, 4)
    run(fake, pictures[:1])
    fake.forget()
    gate = threading.Barrier(3)

    def refuses(body: dict[str, Any]) -> Turn | None:
        if body["messages"][0]["role"] != "system" or len(fake.requests) < 1:
            return None
        gate.wait(timeout=30)
        return refusal("System role not supported")

    fake.refuses = refuses
    result = run(fake, pictures, at_once=3, existing=Existing.REPLACE)
    assert [item.caption for item in result.items] == [description(number) for number in range(4)]
    assert len(fake.requests) == 1 + 3 + 3
    assert {request.body["response_format"]["type"] for request in fake.requests} == {"json_schema"}, "and nothing else"


@pytest.mark.parametrize("turn", [
    {"refusal": "I cannot describe people."}, {"finish": "content_filter", "text": ""},
    {"status": 400, "error": {"error": {"message": "flagged", "code": "content_filter"}}}])
def test_a_refused_picture_is_named_and_the_others_captioned(fake: FakeVision, tmp_path: Path, turn: Any) -> None:
    pictures = write_numbered(tmp_path, 4)
    fake.say().say(**turn)
    result = run(fake, pictures, at_once=1)
    assert [item.picture.name for item in result.failed] == ["001.png"]
    assert list(sidecars(tmp_path)) == ["000", "002", "003"]
    with pytest.raises(AtelierError, match=r"1 of 4 pictures got no caption: 001.png \("):
        result.require_all()
    assert [item.caption for item in run(fake, pictures).items] == [description(number) for number in range(4)]
    assert fake.seen() == [0, 1, 2, 3, 1]


def test_a_damaged_picture_is_named_and_not_sent(fake: FakeVision, tmp_path: Path) -> None:
    pictures = write_numbered(tmp_path, 2)
    pictures[0].write_bytes(b"no picture")
    result = run(fake, pictures)
    assert [item.picture.name for item in result.failed] == ["000.png"]
    assert fake.seen() == [1]


def test_a_model_that_is_being_loaded_is_waited_for_and_said_once(fake: FakeVision, tmp_path: Path,
                                                                  caplog: pytest.LogCaptureFixture) -> None:
    fake.turns += [refusal("Loading model", 503), Turn(delay=0.5)]  # the answer comes some looks after the word
    with caplog.at_level("INFO", "atelier"):
        result = run(fake, write_numbered(tmp_path, 1))
    assert [item.caption for item in result.items] == [description(0)]
    assert [record.message for record in caplog.records] == [f"{fake.base_url[7:-3]} is loading fake-model …"]


@pytest.mark.parametrize("at_once", [-1, 0, MOST_AT_ONCE + 1])
def test_no_number_of_questions_at_a_time_beyond_its_range_is_taken(fake: FakeVision, at_once: int) -> None:
    with pytest.raises(AtelierError, match=rf"^at_once is {at_once}\..* from 1 to {MOST_AT_ONCE}"):
        run(fake, [], at_once=at_once)
    assert run(fake, [], at_once=1).items == run(fake, [], at_once=MOST_AT_ONCE).items == ()


def test_a_wrong_key_ends_the_run_after_one_question(fake: FakeVision, tmp_path: Path) -> None:
    fake.refuses = lambda body: refusal("wrong key", 401)
    with pytest.raises(AtelierError, match="answered 401: wrong key"):
        run(fake, write_numbered(tmp_path, 20), at_once=8)
    assert len(fake.requests) == 1


def test_rate_limits_are_waited_for(fake: FakeVision, tmp_path: Path) -> None:
    fake.say().say(status=429, headers={"Retry-After": "0"}).say(status=429, headers={"Retry-After": "0"})
    result = run(fake, write_numbered(tmp_path, 4), at_once=2)
    assert not result.failed
    assert len(fake.requests) == 6


# Stopped and gone on with -------------------------------------------------------------------------------------------

def test_cancelling_while_several_wait_ends_at_once_and_keeps_what_was_answered(fake: FakeVision, tmp_path: Path
                                                                                ) -> None:
    pictures = write_numbered(tmp_path, 30)

    class Cancelled(Progress):
        def check(self) -> None:
            if fake.held.acquire(blocking=False):  # the requests after the tenth are held
                raise Interrupted

    def hold_after_ten(body: dict[str, Any]) -> Turn | None:
        if len(fake.requests) >= 10:
            fake.open.clear()
        return None

    fake.refuses = hold_after_ten
    with pytest.raises(Interrupted):
        run(fake, pictures, at_once=4, progress=Cancelled())
    done = sidecars(tmp_path)
    assert len(done) >= 6
    fake.forget()
    run(fake, pictures)
    assert sorted(fake.seen()) == sorted(set(range(30)) - {int(name) for name in done})


def test_200_pictures_with_a_kill_in_the_middle_none_asked_twice_none_lost(fake: FakeVision, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    pictures = write_numbered(folder, 200)

    def hold_after_a_hundred(body: dict[str, Any]) -> Turn | None:
        if len(fake.requests) >= 100:
            fake.open.clear()
        return None

    fake.refuses = hold_after_a_hundred
    command = [sys.executable, "-m", "atelier", "caption", str(folder), "--endpoint", fake.base_url, "--model",
               "fake-model", "--at-once", "4", "--trigger", "ohwx"]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    first = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    for _ in range(4):
        assert fake.held.acquire(timeout=120)
    # All four threads wait for answers, so every answer before is written down.
    first.kill()
    first.communicate()
    answered = fake.told()
    written = sidecars(folder)
    assert sorted(int(name) for name in written) == sorted(answered)
    assert 90 <= len(answered) < 200
    assert not list(folder.rglob("*.part*"))
    fake.forget()
    second = subprocess.run([*command, "--json"], cwd=ROOT, env=environment, capture_output=True, text=True,
                            encoding="utf-8", timeout=300)
    assert second.returncode == 0, second.stderr
    assert sorted([*answered, *fake.seen()]) == list(range(200))
    assert sidecars(folder) == {path.stem: f"ohwx, {description(number)}\n" for number, path in enumerate(pictures)}
    listed = json.loads(second.stdout)["pictures"]
    assert [item["caption"] for item in listed] == [f"ohwx, {description(number)}" for number in range(200)]
    assert sum(item["source"] == "file" for item in listed) == len(answered)


# Where pictures and keys go -----------------------------------------------------------------------------------------

def test_neither_key_nor_picture_follows_a_redirect(fake: FakeVision, tmp_path: Path) -> None:
    with FakeVision() as other:
        fake.refuses = lambda body: Turn(status=307, error={}, headers={"Location": other.base_url +
                                                                       "/chat/completions"})
        with pytest.raises(AtelierError, match="redirects are not followed"):
            run(fake, write_numbered(tmp_path, 3))
        assert not other.requests


def test_a_key_that_is_not_bound_to_the_address_is_not_used_and_no_picture_is_sent(fake: FakeVision, tmp_path: Path
                                                                                   ) -> None:
    llm = LanguageModel(base_url=fake.base_url, model="fake-model", credential="OPENAI_API_KEY")
    client = ChatClient(llm=llm, credentials=CredentialStore(environ={"OPENAI_API_KEY": KEY}))
    with pytest.raises(AtelierError, match="OPENAI_API_KEY may not be sent to") as caught:
        CaptionWriter(client=client, request=CaptionRequest(), progress=Progress()).run(write_numbered(tmp_path, 3))
    assert not fake.requests
    assert KEY not in str(caught.value)


def test_captions_reach_a_training_set(fake: FakeVision, tmp_path: Path) -> None:
    run(fake, write_numbered(tmp_path, 3), CaptionRequest(trigger="ohwx"))
    data = read_folder(tmp_path, FolderOptions(trigger="ohwx"))
    assert [sample.captions for sample in data.samples] == [(f"ohwx, {description(number)}",) for number in range(3)]
