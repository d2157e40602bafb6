"""The main job, end to end on a running ComfyUI: checkpoint, diffusers folder, LoRA, picture."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from kit.graphs import Graph
from kit.host import Host, Result
from kit.shapes import draw_shapes
from safetensors import safe_open
from safetensors.torch import load_file

from tools.workflows import read_api

pytestmark = [pytest.mark.host, pytest.mark.slow]

SIZE = 64


def small(host: Host, checkpoint: str) -> dict[str, Any]:
    """The shipped workflow, for a small model and few steps."""
    draw_shapes(host.base / "input" / "main job")
    graph = copy.deepcopy(read_api("finetune_then_generate"))
    changes: dict[str, dict[str, Any]] = {
        "1": {"checkpoint": checkpoint},
        "2": {"folder": "main job", "resolution": SIZE},
        # A high rate: a few steps must show in the picture.
        "3": {"learning_rate": 3e-3, "schedule": "constant", "sample_every": 6, "sample_steps": 2},
        "4": {"name": "main job", "length": 12},
        "14": {"width": SIZE, "height": SIZE},
        "15": {"steps": 3}, "16": {"steps": 3},
    }
    for node, inputs in changes.items():
        graph[node]["inputs"].update(inputs)
    return graph


@pytest.fixture(scope="module")
def graph(host: Host, checkpoint: str) -> dict[str, Any]:
    return small(host, checkpoint)


@pytest.fixture(scope="module")
def result(host: Host, graph: dict[str, Any]) -> Result:
    done = host.queue(graph)
    assert done.status == "success", done.error
    return done


def halves(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """The pictures without and with the LoRA, as the workflow saved them side by side."""
    both = result.pictures("20")[0].astype(int)
    assert both.shape == (SIZE, 2 * SIZE + 8, 3)
    return both[:, :SIZE], both[:, -SIZE:]


def test_the_pictures_are_pictures_and_differ(result: Result) -> None:
    without, tuned = halves(result)
    for picture in (without, tuned):
        assert picture.std() > 5, "an even picture: NaN, or nothing denoised"
        assert len(np.unique(picture)) > 50
    assert np.abs(without - tuned).mean() > 1, "the LoRA changes nothing"


def test_strength_zero_is_the_model_itself(host: Host, graph: dict[str, Any], result: Result) -> None:
    # Before any other graph runs: the host keeps the results of the last one.
    graph = copy.deepcopy(graph)
    graph["6"]["inputs"] |= {"strength_model": 0.0, "strength_clip": 0.0}
    done = host.queue(graph)
    assert done.status == "success", done.error
    assert not {"1", "2", "4"} & done.ran(), "only the pictures are drawn anew"
    without, tuned = halves(done)
    assert np.array_equal(without, tuned)


def test_every_stage_ran_and_showed_itself(result: Result, graph: dict[str, Any]) -> None:
    # The host may have cached the rest (texts, numbers, an empty latent) in another test.
    stages = {name for name, node in graph.items() if node["class_type"].startswith(("Atelier", "KSampler"))}
    assert stages <= result.ran()
    assert "parameters in float16" in result.text("1")
    assert result.pictures("2")[0].std() > 10, "no contact sheet"
    assert "12 of 12 steps" in result.text("4")
    plot, *samples = result.pictures("4")
    assert plot.shape[0] > SIZE
    assert plot.std() > 5
    assert len(samples) >= 2
    bars = {data["node"] for data in result.kinds("progress")}
    assert {"1", "4", "15", "16"} <= bars
    assert result.kinds("atelier.training")[-1]["samples"]


def test_the_folder_is_a_diffusers_model(host: Host, result: Result) -> None:
    folder = host.base / "models" / "diffusers" / "small"
    assert (folder / "model_index.json").is_file()
    unet = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert {key.split(".")[0] for key in unet} == {"conv_in", "conv_out", "conv_norm_out", "time_embedding",
                                                   "down_blocks", "up_blocks"}


def test_the_lora_file_says_how_it_was_made(host: Host, result: Result) -> None:
    with safe_open(host.base / "models" / "loras" / "main job.safetensors", framework="pt") as file:
        header = file.metadata()
        keys = list(file.keys())
    assert header["ss_network_dim"] == "16"
    assert header["modelspec.title"] == "main job"
    assert all(key.startswith("lora_unet_") for key in keys)
    assert {key.rsplit(".", 1)[1] for key in keys} == {"weight", "alpha"}


def test_the_file_gives_the_same_picture_in_cores_own_nodes(host: Host, graph: dict[str, Any], result: Result) -> None:
    """Core's checkpoint loader and LoRA loader, no node of ours, against our Load for Sampling and Apply LoRA."""
    core = {name: copy.deepcopy(graph[name]) for name in ("7", "8", "9", "12", "13", "14", "16", "18")}
    core["5"] = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": graph["1"]["inputs"]["checkpoint"]}}
    core["6"] = {"class_type": "LoraLoader", "inputs": {"model": ["5", 0], "clip": ["5", 1], "strength_model": 1.0,
                                                        "strength_clip": 1.0, "lora_name": "main job.safetensors"}}
    core["20"] = {"class_type": "SaveImage", "inputs": {"images": ["18", 0], "filename_prefix": "core"}}
    before = len(host.log())
    done = host.queue(core)
    assert done.status == "success", done.error
    assert "lora key not loaded" not in host.log()[before:]
    assert np.array_equal(done.pictures("20")[0], halves(result)[1])


def test_export_writes_the_tuned_model_as_one_file(host: Host, graph: dict[str, Any], result: Result) -> None:
    graph = {**graph, "30": {"class_type": "AtelierExportCheckpoint", "inputs": {
        "model": ["1", 0], "lora": ["4", 0], "name": "tuned", "precision": "keep", "strength": 1.0}}}
    done = host.queue(graph)
    assert done.status == "success", done.error
    core = Graph(load=("CheckpointLoaderSimple", {"ckpt_name": "tuned.safetensors"})).fill(host)
    core |= {name: copy.deepcopy(graph[name]) for name in ("7", "8", "9", "12", "13", "14", "16", "18")}
    for name, key, slot in (("12", "clip", 1), ("13", "clip", 1), ("16", "model", 0), ("18", "vae", 2)):
        core[name]["inputs"][key] = ["load", slot]
    core["20"] = {"class_type": "SaveImage", "inputs": {"images": ["18", 0], "filename_prefix": "tuned"}}
    merged = host.queue(core)
    assert merged.status == "success", merged.error
    # The merged weights are rounded to float16 once.
    difference = np.abs(merged.pictures("20")[0].astype(int) - halves(result)[1])
    assert difference.mean() < 1
    tuned = load_file(host.base / "models" / "checkpoints" / "tuned.safetensors")
    base = load_file(host.base / "models" / "checkpoints" / graph["1"]["inputs"]["checkpoint"])
    changed = {key for key, value in tuned.items() if not torch.equal(value, base[key])}
    assert changed
    assert all(".attn1." in key or ".attn2." in key for key in changed), "an untrained weight was touched"


def test_the_same_conversion_is_found_again(host: Host, graph: dict[str, Any], result: Result) -> None:
    folder = host.base / "models" / "diffusers" / "small"
    before = (folder / "model_index.json").stat().st_mtime_ns
    host.free()
    only = {"1": graph["1"]}
    again = host.queue(only)
    assert "1" in again.ran()
    assert again.text("1") == result.text("1")
    assert (folder / "model_index.json").stat().st_mtime_ns == before
    assert not folder.with_name("small-2").exists()
