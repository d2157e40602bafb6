"""A picture that the host has saved, read again by the host, and drawn again from what was read."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest
from kit.graphs import Graph
from kit.host import Host
from kit.small_workflows import write_lora
from PIL import Image

pytestmark = pytest.mark.host

SAMPLING = {"seed": 2**60 + 1, "steps": 3, "cfg": 3.5, "sampler_name": "euler", "scheduler": "karras"}


def drawing(checkpoint: object, positive: object, negative: object, sampling: dict[str, object],
            size: tuple[object, object]) -> Graph:
    return Graph(
        load=("CheckpointLoaderSimple", {"ckpt_name": checkpoint}),
        positive=("CLIPTextEncode", {"clip": ["load", 1], "text": positive}),
        negative=("CLIPTextEncode", {"clip": ["load", 1], "text": negative}),
        empty=("EmptyLatentImage", {"width": size[0], "height": size[1]}),
        sample=("KSampler", {"model": ["load", 0], "positive": ["positive", 0], "negative": ["negative", 0],
                             "latent_image": ["empty", 0], **sampling}),
        decode=("VAEDecode", {"samples": ["sample", 0], "vae": ["load", 2]}),
        save=("SaveImage", {"images": ["decode", 0], "filename_prefix": "read me"}))


def test_a_saved_picture_is_drawn_again_from_what_it_says(host: Host, checkpoint: str) -> None:
    first = host.queue(drawing(checkpoint, "a fox, größer", "blurry", SAMPLING, (64, 72)).fill(host))
    assert first.status == "success", first.error
    name = first.outputs["save"]["images"][0]["filename"]
    shutil.copy(host.base / "output" / name, host.base / "input" / "läs mich.png")
    again = drawing(["read", 9], ["read", 0], ["read", 1],
                    {"seed": ["read", 6], "steps": ["read", 4], "cfg": ["read", 5], "sampler_name": ["read", 2],
                     "scheduler": ["read", 3]}, (["read", 7], ["read", 8]))
    again.nodes["read"] = ("AtelierReadPrompt", {"image": "läs mich.png"})
    host.free()  # or the host would hand out the first picture, as the same inputs made it
    second = host.queue(again.fill(host))
    assert second.status == "success", second.error
    text = second.text("read")
    assert "Made with ComfyUI." in text and "seed: 1152921504606846977" in text and f"here as {checkpoint}" in text
    assert second.pictures("save")[0].shape == (72, 64, 3)
    assert np.array_equal(first.pictures("save")[0], second.pictures("save")[0])
    # What was read as the caption of a training set.
    third = host.queue(Graph(read=again.nodes["read"], photo=("LoadImage", {"image": "läs mich.png"}),
                             set=("AtelierImagesToTrainingSet", {"images": ["photo", 0], "captions": ["read", 0],
                                                                 "trigger": ""}),
                             show=("PreviewAny", {"source": ["set", 0]})).fill(host))
    assert third.status == "success", third.error
    assert "captions=('a fox, größer',)" in third.text("show")


def test_a_lora_is_applied_again_and_prompts_become_captions(host: Host, checkpoint: str) -> None:
    write_lora(host.base / "models" / "loras" / "read me" / "loud ü.safetensors")

    def with_lora(name: object, strength: object) -> Graph:
        graph = drawing(checkpoint, "a fox, größer", "", SAMPLING, (64, 72)).change("sample", model=["lora", 0])
        graph.nodes["lora"] = ("LoraLoaderModelOnly", {"model": ["load", 0], "lora_name": name,
                                                       "strength_model": strength})
        return graph

    listed = host.get_json("/object_info/LoraLoaderModelOnly")["LoraLoaderModelOnly"]["input"]["required"]["lora_name"]
    name, = (each for each in (listed[1]["options"] if listed[0] == "COMBO" else listed[0]) if "loud ü" in each)
    first = host.queue(with_lora(name, -0.75).fill(host))
    assert first.status == "success", first.error
    folder = host.base / "input" / "captioned"
    folder.mkdir()
    saved = host.base / "output" / first.outputs["save"]["images"][0]["filename"]
    shutil.copy(saved, folder / "a.png")
    shutil.copy(saved, host.base / "input" / "loud.png")
    again = with_lora(["read", 11], ["read", 12])
    again.nodes["read"] = ("AtelierReadPrompt", {"image": "loud.png"})
    host.free()
    second = host.queue(again.fill(host))
    assert second.status == "success", second.error
    assert np.array_equal(first.pictures("save")[0], second.pictures("save")[0])
    plain = host.queue(with_lora(name, 0.0).fill(host))
    assert not np.array_equal(first.pictures("save")[0], plain.pictures("save")[0]), "or the test would see nothing"
    third = host.queue(Graph(set=("AtelierImageFolder", {"folder": "captioned", "captions": "metadata",
                                                         "resolution": 64}),
                             show=("PreviewAny", {"source": ["set", 0]})).fill(host))
    assert third.status == "success", third.error
    assert "captions=('a fox, größer',)" in third.text("show")


def test_each_picture_of_a_list_has_its_own_prompt_and_seed(host: Host, checkpoint: str) -> None:
    graph = drawing(checkpoint, ["list", 0], "blurry", {**SAMPLING, "seed": ["list", 1]}, (64, 72))
    graph.nodes["list"] = ("AtelierPromptList", {"text": "# animals\na fox\na hen", "before": "a sketch of",
                                                 "seed": 40})
    graph.nodes["save"] = ("AtelierSaveTitled", {
        "images": ["decode", 0], "title": ["list", 2], "folder": "%date:yyyy%/%KSampler.steps% steps/",
        "prompt": ["list", 0], "negative": "blurry", "seeds": ["list", 1]})
    # Another sampler beside it, saved by another node.
    graph.nodes["more"] = ("KSampler", {**graph.nodes["sample"][1], "steps": 1})
    graph.nodes["other"] = ("VAEDecode", {"samples": ["more", 0], "vae": ["load", 2]})
    graph.nodes["keep"] = ("AtelierSaveTitled", {"images": ["other", 0], "title": "other", "folder": "other"})
    drawn = host.queue(graph.fill(host))
    assert drawn.status == "success", drawn.error
    folder = host.base / "output" / f"{time.localtime().tm_year}" / "3 steps"
    assert sorted(path.name for path in folder.glob("*.png")) == ["a fox.png", "a hen.png"]
    for name, seed in (("a fox", 40), ("a hen", 41)):
        shutil.copy(folder / f"{name}.png", host.base / "input")
        read = host.queue(Graph(read=("AtelierReadPrompt", {"image": f"{name}.png"})).fill(host))
        assert read.status == "success", read.error
        text = read.text("read")
        assert "Made with Atelier." in text and f"a sketch of {name}\n\nNegative: blurry" in text
        assert f"seed: {seed}\n" in text and "steps: 3\n" in text and f"here as {checkpoint}" in text
        assert "not read" not in text
    shutil.copy(host.base / "output" / "other" / "other.png", host.base / "input")
    assert "steps: 1\n" in host.queue(Graph(read=("AtelierReadPrompt", {"image": "other.png"})).fill(host)).text("read")
    (host.base / "input" / "list").mkdir()
    for path in folder.iterdir():
        shutil.copy(path, host.base / "input" / "list")
    for captions in ("sidecar", "metadata"):
        shown = host.queue(Graph(set=("AtelierImageFolder", {"folder": "list", "captions": captions, "resolution": 64}),
                                 show=("PreviewAny", {"source": ["set", 0]})).fill(host))
        assert shown.status == "success", shown.error
        assert "captions=('a sketch of a fox',)" in shown.text("show")
        assert "captions=('a sketch of a hen',)" in shown.text("show")
        for path in (host.base / "input" / "list").glob("*.txt"):
            path.unlink()


def test_a_picture_without_a_prompt_is_named(host: Host) -> None:
    Image.new("RGB", (8, 8)).save(host.base / "input" / "plain.png")
    failed = host.queue(Graph(read=("AtelierReadPrompt", {"image": "plain.png"})).fill(host))
    assert failed.status == "error" and "plain.png holds no metadata" in failed.error
    missing = host.queue(Graph(read=("AtelierReadPrompt", {"image": "gone.png"})).fill(host))
    assert missing.status == "rejected" and "no picture 'gone.png'" in missing.error
