"""The training panel's server side, without an editor: live news, history, "Stop and keep" and "Sample now"."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.graphs import Graph
from kit.host import Event, Host, Result
from kit.shapes import draw_shapes
from PIL import Image
from safetensors.torch import load_file

pytestmark = [pytest.mark.host, pytest.mark.slow]

BATCH = 4
"""Batch size of encoding on a CPU."""
STOP, SAMPLE, CONTINUE = (f"/atelier/training/{request}" for request in ("stop", "sample", "continue"))
NOTHING = {"message": "Nothing is being trained.", "reached": []}
LONG = 5000
"""Steps of a run that lasts until the test stops it."""


@pytest.fixture(scope="module")
def pictures(host: Host) -> Path:
    return draw_shapes(host.base / "input" / "panel")


def training(checkpoint: str, pictures: Path, name: str, steps: int, *, node: str = "train",
             **options: Any) -> Graph:
    """A small training whose trainer has the id `node`, with a picture of its loss plot made after it."""
    return Graph(**{
        "model": ("AtelierOpenModel", {"model": checkpoint, "prediction_type": "auto"}),
        "data": ("AtelierImageFolder", {"folder": pictures.name, "resolution": 64}),
        "lora": ("AtelierLoraConfig", {"rank": 4}),
        "options": ("AtelierTrainingOptions", {"monitor": "off", "patience": 0, **options}),
        node: ("AtelierTrainLora", {"model": ["model", 0], "training_set": ["data", 0], "lora_config": ["lora", 0],
                                    "options": ["options", 0], "name": name, "length": steps,
                                    "sample_prompt": "" if "sample_prompt" in options else "none"}),
        "after": ("PreviewImage", {"images": [node, 2]}),
    })


def at_step(number: int, act: Callable[[dict[str, Any]], None]) -> Callable[[Event], None]:
    """Call `act` once, with the first news of a training that has reached step `number`."""
    done: list[bool] = []

    def watch(event: Event) -> None:
        if event.kind == "atelier.training" and not done and event.data["values"].get("step", 0) >= number:
            done.append(True)
            act(event.data)
    return watch


def session(host: Host, **address: str) -> dict[str, Any]:
    """The only session that matches."""
    found = host.get_json(f"/atelier/training?{urllib.parse.urlencode(address)}")["sessions"]
    assert len(found) == 1, [(s["prompt"], s["node"], s["status"]) for s in found]
    return found[0]


def losses(result: Result, node: str) -> list[tuple[int, float]]:
    return [tuple(point) for data in result.kinds("atelier.training") if data["node"] == node
            for point in data["losses"]]


def test_stop_and_keep_ends_within_a_step_and_the_graph_goes_on(host: Host, checkpoint: str, pictures: Path) -> None:
    answers: list[Any] = []

    def press(news: dict[str, Any]) -> None:
        address = {"prompt": news["prompt"], "node": news["node"]}
        answers.append((news["values"]["step"], host.post(STOP, address), host.post(STOP, address)))
        seen.append(session(host, **address))

    seen: list[dict[str, Any]] = []
    graph = training(checkpoint, pictures, "stopped", LONG, monitor="validation", validate_every=2)
    result = host.queue(graph.fill(host), at_step(6, press))
    assert result.status == "success", result.error
    (pressed, first, second), = answers
    assert [reached["node"] for reached in first["reached"]] == ["train"]
    # Pressed again during the same step, it gives the same answer.
    assert second == first or (second == NOTHING and seen[0]["status"] != "running")
    ended, total = map(int, re.findall(r"stopped by user after (\d+) of (\d+) steps", result.text("train"))[0])
    assert total == LONG
    # The step in the news is done; another one or two may have ended since it was sent.
    assert pressed <= ended <= seen[0]["values"]["step"] + 1
    assert result.pictures("after")[0].std() > 5, "nothing came down the graph"
    best = int(re.findall(r"best loss \S+ at step (\d+)", result.text("train"))[0])
    assert 2 <= best <= ended
    written = load_file(host.base / "models" / "loras" / "stopped.safetensors")
    kept = next(path for path in (host.base / "user" / "atelier" / "runs").glob("*/best.safetensors")
                if _title(path) == "stopped")
    assert np.array_equal(next(iter(written.values())), load_file(kept)[next(iter(written))])
    assert session(host, prompt=answers[0][1]["reached"][0]["prompt"])["status"] == "stopped by user"


def test_a_stopped_training_goes_on_when_it_is_asked_to(host: Host, checkpoint: str, pictures: Path) -> None:
    """Queued again by itself it stays as it was kept, so that what comes after it can be changed in peace."""
    nothing = {"message": "No training was stopped and kept.", "reached": []}
    assert host.post(CONTINUE, {"node": "goes on"}) == nothing
    graph = training(checkpoint, pictures, "goes on", 60, node="goes on").fill(host)
    stopped = host.queue(graph, at_step(6, lambda news: host.post(STOP, {"node": "goes on"})))
    assert stopped.status == "success", stopped.error
    step = int(re.findall(r"stopped by user after (\d+) of 60 steps", stopped.text("goes on"))[0])
    assert 6 <= step < 60 and f"{60 - step} steps are left" in stopped.text("goes on")
    assert "goes on" not in host.queue(graph).ran()
    reached = host.post(CONTINUE, {"node": "goes on"})["reached"]
    assert [session["node"] for session in reached] == ["goes on"]
    result = host.queue(graph)
    assert result.status == "success", result.error
    assert "complete after 60 of 60 steps" in result.text("goes on")
    new = losses(result, "goes on")  # a resumed training shows the steps before once more
    assert [number for number, _ in new] == list(range(1, 61))
    assert host.post(CONTINUE, {"node": "goes on"}) == nothing
    assert "goes on" not in host.queue(graph).ran()


def _title(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return file.metadata()["modelspec.title"]


def test_stop_while_encoding_keeps_the_first_step(host: Host, checkpoint: str, pictures: Path) -> None:
    pressed: list[bool] = []
    seen: list[dict[str, Any]] = []

    def press_early(event: Event) -> None:
        if event.kind == "atelier.training" and not pressed:
            pressed.append(bool(host.post(STOP, {})["reached"]))
            seen.append(session(host, node="train"))
    # New captions, which are not in the cache.
    graph = training(checkpoint, pictures, "early", LONG).change("data", captions="template", caption="early {trigger}")
    result = host.queue(graph.fill(host), press_early)
    assert pressed == [True]
    assert result.status == "success", result.error
    ended, total = map(int, re.findall(r"stopped by user after (\d+) of (\d+) steps", result.text("train"))[0])
    # Only the first step, unless training was faster than the button.
    assert 1 <= ended <= seen[0]["values"].get("step", 0) + 1
    assert total == LONG
    assert load_file(host.base / "models" / "loras" / "early.safetensors")


def test_an_interrupt_while_encoding_ends_within_a_batch(host: Host, checkpoint: str) -> None:
    draw_shapes(host.base / "input" / "many", count=80)
    reached: list[int] = []

    def cancel(event: Event) -> None:
        if event.kind == "atelier.training" and event.data["phase"]["name"] == "encoding" and not reached:
            host.interrupt()
            reached.append(session(host, node="train")["phase"]["done"])
    graph = training(checkpoint, Path("many"), "never", 40).change("data", resolution=128)
    result = host.queue(graph.fill(host), cancel)
    assert result.status == "interrupted"
    assert not losses(result, "train")
    ended = session(host, node="train")
    assert (ended["status"], ended["phase"]["name"]) == ("cancelled", "encoding")
    # Pictures and captions; those of the running batch may still be counted.
    assert ended["phase"]["done"] <= reached[0] + BATCH < ended["phase"]["total"]
    assert not host.post(STOP, {})["reached"]


def test_sample_now_draws_one_picture(host: Host, checkpoint: str, pictures: Path) -> None:
    graph = training(checkpoint, pictures, "sampled", LONG, sample_prompt="a red circle", sample_every=LONG,
                     sample_steps=2)
    asked: list[Any] = []
    ask = at_step(3, lambda news: asked.extend(host.post(SAMPLE, {"node": "train"}) for _ in range(2)))

    def ask_and_stop_once_drawn(event: Event) -> None:
        ask(event)
        if event.kind == "atelier.training" and event.data["samples"]:
            host.post(STOP, {"node": "train"})
    result = host.queue(graph.fill(host), ask_and_stop_once_drawn)
    assert result.status == "success", result.error
    assert [len(answer["reached"]) for answer in asked] == [1, 1]
    known = session(host, node="train")
    # A second one only if its request arrived while the first was being drawn.
    assert len(known["samples"]) in (1, 2)
    assert known["samples"][0] >= 3
    for step in known["samples"]:
        picture = np.asarray(Image.open(BytesIO(host.get(f"{SAMPLE}?prompt={known['prompt']}&node=train&step={step}"))))
        assert picture.shape == (64, 64, 3)
        assert picture.std() > 1


def test_no_picture_where_none_are_wanted(host: Host, checkpoint: str, pictures: Path) -> None:
    answers: list[Any] = []
    result = host.queue(training(checkpoint, pictures, "unsampled", LONG, learning_rate=2e-4).fill(host),
                        at_step(2, lambda news: answers.extend(host.post(path, {}) for path in (SAMPLE, STOP))))
    assert result.status == "success", result.error
    assert answers[0] == {"message": "Train LoRA draws no pictures: its sample prompt is none.", "reached": []}
    assert session(host, node="train")["samples"] == []


def test_history_is_there_for_one_who_comes_late(host: Host, checkpoint: str, pictures: Path) -> None:
    during: list[dict[str, Any]] = []

    def look_and_stop(news: dict[str, Any]) -> None:
        during.append(session(host, node="train"))
        host.post(STOP, {"node": "train"})
    graph = training(checkpoint, pictures, "late", LONG, monitor="validation", validate_every=4)
    result = host.queue(graph.fill(host), at_step(6, look_and_stop))
    assert result.status == "success", result.error
    steps = [step for step, _ in during[0]["losses"]]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 6
    assert during[0]["status"] == "running"
    assert during[0]["phase"]["name"] == "training"
    known = session(host, node="train")
    assert [tuple(point) for point in known["losses"]] == losses(result, "train")
    assert [step for step, _ in known["validation"]] == list(range(4, known["values"]["step"] + 1, 4))
    assert known["status"] == "stopped by user"
    assert known["values"]["best_step"] == min(known["validation"], key=lambda point: point[1])[0]
    assert 0 < known["values"]["memory_used"] < known["values"]["memory_total"]
    assert [data["number"] for data in result.kinds("atelier.training")] == list(range(
        1, len(result.kinds("atelier.training")) + 1)), "news got lost or came twice"

    host.free()
    again = host.queue(graph.fill(host))
    assert "reused" in again.text("train")
    reused = session(host, node="train")
    assert (reused["status"], reused["losses"]) == ("stopped by user", known["losses"]), "it can still go on"


def test_two_trainers_do_not_mix(host: Host, checkpoint: str, pictures: Path) -> None:
    graph = training(checkpoint, pictures, "one", 5, node="12:4").fill(host)
    graph |= {name: node for name, node in training(checkpoint, pictures, "two", 7, node="12:5").fill(host).items()
              if name == "12:5"}
    graph["12:5"]["inputs"]["seed"] = 1
    result = host.queue(graph)
    assert result.status == "success", result.error
    one, two = session(host, node="12:4"), session(host, node="12:5")
    assert (one["status"], two["status"]) == ("complete", "complete")
    assert [step for step, _ in one["losses"]] == [1, 2, 3, 4, 5]
    assert [step for step, _ in two["losses"]] == [1, 2, 3, 4, 5, 6, 7]
    assert losses(result, "12:4") == [tuple(point) for point in one["losses"]]
    assert losses(result, "12:5") == [tuple(point) for point in two["losses"]]


def test_a_list_is_trained_run_by_run_and_found_again_with_its_pictures(
        host: Host, checkpoint: str, pictures: Path) -> None:
    graph = training(checkpoint, pictures, "listed", 5, node="listed", sample_prompt="a red circle", sample_every=3,
                     sample_steps=1, learning_rate=3e-4)
    graph.nodes["seeds"] = ("AtelierPromptList", {"text": "one\ntwo"})
    graph.change("listed", seed=["seeds", 1])
    result = host.queue(graph.fill(host))
    assert result.status == "success", result.error
    news = [data for data in result.kinds("atelier.training") if data["node"] == "listed"]
    first, last = dict.fromkeys(data["run"] for data in news)
    for run in (first, last):
        of_run = [data for data in news if data["run"] == run]
        assert [data["number"] for data in of_run] == list(range(1, len(of_run) + 1))
        assert [step for data in of_run for step, _ in data["losses"]] == [1, 2, 3, 4, 5]
        assert of_run[-1]["samples"] == [3, 5]
    assert len({data["prompt"] for data in news}) == 1
    known = session(host, node="listed")
    assert known["run"] == last

    def picture(run: str, step: int) -> bytes:
        return host.get(f"{SAMPLE}?node=listed&run={run}&step={step}")
    drawn = [picture(last, step) for step in known["samples"]]
    with pytest.raises(urllib.error.HTTPError):
        picture(first, 3)

    host.free()
    host.queue(graph.fill(host))
    again = session(host, node="listed")
    assert (again["status"], again["samples"]) == ("reused", [3, 5])
    assert [picture(again["run"], step) for step in again["samples"]] == drawn


def test_the_editors_workflow_id_comes_along(host: Host, checkpoint: str, pictures: Path) -> None:
    graph = training(checkpoint, pictures, "tabbed", 2, node="tab").fill(host)
    prompt = host.post("/prompt", {"prompt": graph, "extra_data": {"extra_pnginfo": {"workflow": {"id": "w-1"}}}})
    end = time.monotonic() + 600
    while prompt["prompt_id"] not in host.get_json("/history"):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert session(host, node="tab", workflow="w-1")["prompt"] == prompt["prompt_id"]
    assert host.get_json("/atelier/training?node=tab&workflow=w-2") == {"sessions": []}


def test_buttons_are_harmless_when_nothing_runs(host: Host) -> None:
    for path in (STOP, SAMPLE, f"/api{STOP}"):
        for body in ({}, {"node": "nobody"}, {"prompt": "0", "node": "4", "more": 1}):
            assert host.post(path, body) == NOTHING
    for path, status, words in ((f"{SAMPLE}?node=nobody&step=1", 404, "no sample picture"),
                                (f"{SAMPLE}?step=x", 400, "not the number"),
                                (f"{SAMPLE}?step={'9' * 5000}", 400, "not the number")):
        with pytest.raises(urllib.error.HTTPError) as error:
            host.get(path)
        assert error.value.code == status
        assert words in json.loads(error.value.read())["error"]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"node": 4}', b"\xff\xfe", b"[" * 100_000],
                         ids=["half", "list", "number", "bytes", "deep"])
def test_a_body_that_is_no_address_is_refused(host: Host, body: bytes) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{host.port}{STOP}", body, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request)
    assert error.value.code == 400
    assert "not understood" in json.loads(error.value.read())["error"]
