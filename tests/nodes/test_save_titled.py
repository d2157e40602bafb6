"""Save Titled: names, sidecars, and folders that are refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kit.node_calls import image_batch, run_node
from kit.pack import pack_module
from PIL import Image

pytestmark = pytest.mark.host


def test_files_are_named_by_title(nodes: dict[str, Any]) -> None:
    import folder_paths

    out = Path(folder_paths.get_output_directory()) / "my cats"
    images = [image_batch(2)]
    manifest = {"version": 1, "width": 8, "height": 8, "seed": None, "cells": []}
    files, = run_node(nodes["AtelierSaveTitled"], images=images, title=["Neon: Whiskers"], folder=["my cats"],
                      prompt=["a cat"], negative=["blurry"], seeds=[3, 4], manifest=[json.dumps(manifest)])
    assert [Path(file).name for file in files] == ["Neon- Whiskers.png", "Neon- Whiskers (2).png"]
    assert sorted(path.suffix for path in out.iterdir()) == [".json"] * 2 + [".png"] * 2 + [".txt"] * 2
    with Image.open(files[1]) as picture:
        assert picture.tobytes() == (images[0][1] * 255).round().byte().numpy().tobytes()
    sidecar = json.loads((out / "Neon- Whiskers (2).json").read_text(encoding="utf-8"))
    assert (sidecar["title"], sidecar["seed"], sidecar["grid"]) == ("Neon: Whiskers", 4, manifest)
    text = (out / "Neon- Whiskers.txt").read_text(encoding="utf-8")
    assert text.startswith("a cat\nNegative prompt: blurry\nSeed: 3")
    for folder in ("../elsewhere", "/tmp", "a/../.."):
        with pytest.raises(Exception, match="cannot be a file name"):
            run_node(nodes["AtelierSaveTitled"], images=images, folder=[folder])
    with pytest.raises(Exception, match=r"width is \[1\]"):
        run_node(nodes["AtelierSaveTitled"], images=images, manifest=[json.dumps(manifest | {"width": [1]})])


GRAPH = {"1": {"class_type": "AtelierPromptList", "inputs": {"text": "# animals\na fox\na hen", "before": "a sketch of",
                                                             "after": "", "seed": 40}},
         "2": {"class_type": "CLIPTextEncode", "inputs": {"text": ["1", 0]}},
         "3": {"class_type": "KSampler", "inputs": {
             "seed": ["1", 1], "steps": 9, "cfg": 3.5, "sampler_name": "euler", "scheduler": "karras",
             "positive": ["2", 0], "negative": ["2", 0]}}}


@pytest.fixture
def in_a_graph(nodes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the node run in a graph, whose prompts come from a list."""
    monkeypatch.setattr(nodes["AtelierSaveTitled"], "hidden", SimpleNamespace(prompt=GRAPH, extra_pnginfo=None))


def test_each_picture_says_its_own_prompt_and_seed(nodes: dict[str, Any], in_a_graph: None) -> None:
    from atelier.pictures.metadata.read import read_prompt

    files, = run_node(nodes["AtelierSaveTitled"], images=[image_batch(1), image_batch(1)], title=["Own"],
                      prompt=["a sketch of a fox", "a sketch of a hen"], negative=["blurry"], seeds=[40, 41])
    found = [read_prompt(Path(file)) for file in files]
    assert [(one.positive, one.negative, one.seed, one.steps, one.sampler) for one in found] == [
        ("a sketch of a fox", "blurry", 40, 9, "euler"), ("a sketch of a hen", "blurry", 41, 9, "euler")]


def test_a_host_without_metadata_gets_none(nodes: dict[str, Any], in_a_graph: None,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy.cli_args import args

    monkeypatch.setattr(args, "disable_metadata", True)
    files, = run_node(nodes["AtelierSaveTitled"], images=[image_batch(1)], title=["Secret"], prompt=["a fox"])
    with Image.open(files[0]) as picture:
        assert picture.info == {}


def test_names_are_filled_as_the_host_fills_them(nodes: dict[str, Any], in_a_graph: None, pack: Any,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    import folder_paths

    now = time.localtime(1_772_694_489)
    monkeypatch.setattr(time, "localtime", lambda *_: now)
    pattern = "%year%-%month%-%day%/%hour%%minute%%second%/%width%x%height%"
    theirs = folder_paths.get_save_image_path(f"{pattern}/a", folder_paths.get_output_directory(), 24, 16)[0]
    files, = run_node(nodes["AtelierSaveTitled"], images=[image_batch(1)], title=["%KSampler.steps% %date:yyyy%"],
                      folder=[f"{pattern}/"])
    assert Path(files[0]) == Path(theirs) / f"9 {now.tm_year}.png"
    assert pack_module(pack, "nodes.host.folders").output_folder() in Path(files[0]).parents
