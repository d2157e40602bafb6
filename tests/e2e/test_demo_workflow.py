"""The template "Whole pipeline without downloads" in a ComfyUI that has nothing yet."""

from __future__ import annotations

import copy
import json
import shutil
from typing import Any

import numpy as np
import pytest
from kit.host import Event, Host, Result
from kit.small_workflows import node_of
from PIL import Image

from atelier.demo.drawing import held_out_prompts, pencil_caption
from atelier.demo.folders import DemoFolders
from tools.workflows import read_api

pytestmark = [pytest.mark.host, pytest.mark.slow]

SIZE, DRAWN = 128, 2
PICTURES = 8
"""So many of each kind are left to train on: encoding them all takes minutes."""
SHIPPED = read_api("whole_pipeline_without_downloads")


@pytest.fixture(scope="module")
def first_run(host: Host) -> Result:
    """The workflow exactly as it ships, cancelled once the files are there."""
    node = node_of(SHIPPED, "AtelierDemoModel")
    for path in DemoFolders.below(host.base).files():  # other tests on this host may have had them written
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)

    def cancel(event: Event) -> None:
        if event.kind == "executed" and event.data["node"] == node:
            host.interrupt()

    return host.queue(SHIPPED, cancel)


@pytest.fixture(scope="module")
def graph(host: Host, first_run: Result) -> dict[str, Any]:
    """The workflow with what its first run wrote, cut short: what it learns is tested elsewhere."""
    _, _, sketches, plain, _ = DemoFolders.below(host.base).files()
    for folder in (sketches, plain):
        for picture in sorted(folder.glob("*.png"))[PICTURES:]:
            picture.unlink()
            picture.with_suffix(".txt").unlink(missing_ok=True)
    made = copy.deepcopy(SHIPPED)
    made[node_of(made, "AtelierTrainLora")]["inputs"]["length"] = 3
    prompts = made[node_of(made, "AtelierPromptList")]["inputs"]
    prompts["text"] = "\n".join(prompts["text"].splitlines()[:DRAWN])
    for node in made.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 2
    return made


@pytest.fixture(scope="module")
def result(host: Host, graph: dict[str, Any]) -> Result:
    done = host.queue(graph)
    assert done.status == "success", done.error
    return done


def of_class(graph: dict[str, Any], kind: str) -> list[str]:
    return [name for name, node in graph.items() if node["class_type"] == kind]


def test_it_is_the_story_that_make_demo_tells() -> None:
    prompts = SHIPPED[node_of(SHIPPED, "AtelierPromptList")]["inputs"]
    assert [f"{prompts['before']} {line}" for line in prompts["text"].splitlines()] == [
        pencil_caption(spec) for spec, _ in held_out_prompts(8)]
    assert SHIPPED[node_of(SHIPPED, "AtelierTrainLora")]["inputs"]["preset"] == "demo model"


def test_the_first_run_finds_nothing_and_writes_what_it_needs(host: Host, first_run: Result) -> None:
    assert first_run.status == "interrupted", first_run.error
    assert DemoFolders.below(host.base).complete()
    assert "atelier-demo.safetensors" in first_run.text(node_of(SHIPPED, "AtelierDemoModel"))


def test_both_rows_are_drawn_and_differ(graph: dict[str, Any], result: Result) -> None:
    without, tuned = (np.stack(result.pictures(name)).astype(int) for name in of_class(graph, "PreviewImage"))
    assert without.shape == tuned.shape == (DRAWN, SIZE, SIZE, 3)
    assert without.std() > 5
    assert np.abs(without - tuned).mean() > 0.5, "the LoRA changes nothing"
    assert np.abs(without[0] - without[1]).mean() > 1, "two prompts, one picture"


def test_the_small_clip_scores_content_and_style(graph: dict[str, Any], result: Result) -> None:
    for name in of_class(graph, "AtelierCLIPScore"):
        text = result.text(name)
        assert f"n {DRAWN}" in text and "style" in text and "atelier-demo-clip" in text


def test_the_grid_is_saved_under_its_title(host: Host, graph: dict[str, Any], result: Result) -> None:
    title = graph[node_of(graph, "AtelierSaveTitled")]["inputs"]["title"]
    folder = host.base / "output" / "atelier"
    with Image.open(folder / f"{title}.png") as grid:
        assert grid.width > 2 * SIZE * DRAWN
    about = json.loads((folder / f"{title}.json").read_text(encoding="utf-8"))
    kinds = [cell["kind"] for cell in about["grid"]["cells"]]
    assert (kinds.count("unique"), kinds.count("filler")) == (DRAWN, 3 * DRAWN)


def test_it_writes_again_what_was_removed_and_only_then(host: Host, graph: dict[str, Any], result: Result) -> None:
    node = node_of(graph, "AtelierDemoModel")
    alone = {node: graph[node]}
    fillers = DemoFolders.below(host.base).files()[-1]
    shutil.rmtree(fillers)
    again, unchanged = host.queue(alone), host.queue(alone)
    assert again.status == unchanged.status == "success"
    assert fillers.is_dir()
    assert (node in again.ran(), node in unchanged.ran()) == (True, False)
