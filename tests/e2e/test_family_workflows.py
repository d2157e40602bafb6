"""The workflows for SDXL and its distilled relatives, SD-Turbo and merging, in the real host.

The models are random and small, of the right family, under the names that the workflows ship with.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.checkpoints import write_bare_unet, write_sd1, write_sd2, write_sdxl
from kit.clip_models import clip_config, random_clip, save_clip
from kit.host import Host, Result
from kit.shapes import draw_shapes
from kit.small_workflows import SIZE, node_of
from safetensors import safe_open
from safetensors.torch import save_file

from tools.workflows import read_api

pytestmark = [pytest.mark.host, pytest.mark.slow]

STEPS = (2, 4, 8)


@pytest.fixture(scope="module")
def studio(host: Host, put_checkpoint: Callable[..., str]) -> Host:
    """The shared host, with the models that the workflows name."""
    models, pictures = host.base / "models", host.base / "input" / "my-pictures"
    base = write_sdxl(models / "checkpoints" / "sd_xl_base_1.0.safetensors")
    (models / "checkpoints" / "sd_xl_turbo_1.0_fp16.safetensors").hardlink_to(base)
    write_sd2(models / "checkpoints" / "sd_turbo.safetensors")
    put_checkpoint(host, "v1-5-pruned-emaonly-fp16.safetensors")
    write_sd1(models / "checkpoints" / "Deliberate_v2.safetensors", seed=5)
    for steps in STEPS:
        write_bare_unet(models / "diffusion_models" / f"sdxl_lightning_{steps}step_unet.safetensors", "small",
                        seed=steps)
        write_lora(models / "loras" / f"sdxl_lightning_{steps}step_lora.safetensors", seed=steps)
    shutil.rmtree(pictures, ignore_errors=True)  # other tests put other pictures there
    draw_shapes(pictures, count=3, size=SIZE)
    return host


def write_lora(path: Path, seed: int) -> None:
    """A LoRA on some of the small SDXL's layers, in the original (LDM) names, as published files have."""
    stream, state = torch.Generator().manual_seed(seed), {}
    for place in ("input_blocks_4_1", "middle_block_1", "output_blocks_2_1"):
        for layer in ("attn1_to_q", "attn1_to_v", "attn1_to_out_0"):
            stem = f"lora_unet_{place}_transformer_blocks_0_{layer}"
            state[f"{stem}.lora_down.weight"] = torch.randn(4, 320, generator=stream) / 320 ** 0.5
            state[f"{stem}.lora_up.weight"] = torch.randn(320, 4, generator=stream) * 0.5
            state[f"{stem}.alpha"] = torch.tensor(4.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)


def small(name: str) -> dict[str, Any]:
    """The shipped workflow with small pictures and few steps."""
    graph = copy.deepcopy(read_api(name))
    for node in graph.values():
        inputs = node["inputs"]
        if node["class_type"] == "EmptyLatentImage":
            inputs |= {"width": SIZE, "height": SIZE}
        elif node["class_type"] == "KSampler":
            inputs["steps"] = inputs["steps"] if inputs["steps"] in STEPS else 3
        elif node["class_type"] == "AtelierImageFolder":
            inputs["resolution"] = SIZE
        elif node["class_type"] == "AtelierTrainLora":
            inputs |= {"length": 3, "unit": "epochs", "sample_prompt": "none"}
    return graph


def queue(host: Host, graph: dict[str, Any]) -> Result:
    before = len(host.log())
    result = host.queue(graph)
    assert result.status == "success", result.error
    for complaint in ("lora key not loaded", "missing", "unet unexpected"):
        assert complaint not in host.log()[before:], host.log()[before:]
    return result


def picture(result: Result, graph: dict[str, Any]) -> np.ndarray:
    """The saved picture; it must not be uniform."""
    (found,) = result.pictures(node_of(graph, "SaveImage"))
    assert found.std() > 5, "an even picture: NaN, or nothing denoised"
    assert len(np.unique(found)) > 50
    return found.astype(int)


def steps_done(result: Result, node: str) -> int:
    return max(data["max"] for data in result.kinds("progress") if data["node"] == node)


def columns(found: np.ndarray, count: int) -> list[np.ndarray]:
    """Split pictures that are side by side, 8 pixels apart."""
    assert found.shape == (SIZE, count * SIZE + (count - 1) * 8, 3)
    return [found[:, start:start + SIZE] for start in range(0, count * (SIZE + 8), SIZE + 8)]


def differ(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.abs(first - second).mean() > 1)


def test_sdxl_base(studio: Host) -> None:
    graph = small("sdxl_base")
    first = picture(queue(studio, graph), graph)
    assert first.shape == (SIZE, SIZE, 3)
    graph[node_of(graph, "CLIPTextEncode", "Prompt")]["inputs"]["text"] = "a fox in the snow"
    assert differ(first, picture(queue(studio, graph), graph)), "the prompt changes nothing"


def test_sdxl_turbo_draws_in_one_step(studio: Host) -> None:
    graph = small("sdxl_turbo")
    result = queue(studio, graph)
    picture(result, graph)
    assert steps_done(result, node_of(graph, "SamplerCustom")) == 1
    assert read_api("sdxl_turbo")[node_of(graph, "EmptyLatentImage")]["inputs"]["width"] == 512


@pytest.mark.parametrize("steps", STEPS)
def test_lightning_unet(studio: Host, steps: int) -> None:
    graph = small(f"sdxl_lightning_unet_{steps}_steps")
    result = queue(studio, graph)
    found = picture(result, graph)
    assert steps_done(result, node_of(graph, "KSampler")) == steps
    assert graph["1"]["inputs"]["unet_name"] == f"sdxl_lightning_{steps}step_unet.safetensors"
    graph[node_of(graph, "KSampler")]["inputs"]["model"] = [node_of(graph, "CheckpointLoaderSimple"), 0]
    assert differ(found, picture(queue(studio, graph), graph)), "the UNet's file changes nothing"


@pytest.mark.parametrize("steps", STEPS)
def test_lightning_lora(studio: Host, steps: int) -> None:
    graph = small(f"sdxl_lightning_lora_{steps}_steps")
    result = queue(studio, graph)
    found = picture(result, graph)
    assert steps_done(result, node_of(graph, "KSampler")) == steps
    lora = graph[node_of(graph, "LoraLoaderModelOnly")]["inputs"]
    assert lora["lora_name"] == f"sdxl_lightning_{steps}step_lora.safetensors"
    lora["strength_model"] = 0.0
    assert differ(found, picture(queue(studio, graph), graph)), "the LoRA changes nothing"


def test_lightning_side_by_side(studio: Host) -> None:
    save_clip(studio.base / "models" / "clip_score" / "open_clip_model.safetensors", random_clip(clip_config()))
    graph = small("sdxl_lightning")
    compare = node_of(graph, "AtelierCompareModels")
    alone = {steps: small(f"sdxl_lightning_lora_{steps}_steps") for steps in STEPS}
    prompts = graph[compare]["inputs"]["prompts"].split("\n")
    assert prompts[0] == alone[2][node_of(alone[2], "CLIPTextEncode")]["inputs"]["text"]
    graph[compare]["inputs"] |= {"width": SIZE, "height": SIZE, "prompts": prompts[0], "seeds": 1, "cell": 0}
    graph["all"] = {"class_type": "PreviewImage", "inputs": {"images": [compare, 4]}}
    result = queue(studio, graph)
    drawn = [found.astype(int) for found in result.pictures("all")]
    for found, workflow in zip(drawn, alone.values(), strict=True):
        # The host truncates to 8 bits, the pack rounds.
        assert np.abs(found - picture(queue(studio, workflow), workflow)).max() <= 1
    assert differ(drawn[0], drawn[1]) and differ(drawn[1], drawn[2])
    table = result.text(node_of(graph, "PreviewAny", "Table"))
    assert all(f"{steps} steps" in table for steps in STEPS) and "open_clip_model.safetensors, cosine" in table


def test_sd_turbo_is_fine_tuned_and_draws(studio: Host) -> None:
    graph = small("finetune_sd_turbo")
    result = queue(studio, graph)
    without, tuned = columns(picture(result, graph), 2)
    assert not np.array_equal(without, tuned), "the LoRA changes nothing"
    assert "9 of 9 steps" in result.text(node_of(graph, "AtelierTrainLora"))
    with safe_open(studio.base / "models" / "loras" / "my-turbo-subject.safetensors", framework="pt") as file:
        header = file.metadata()
    assert [float(header[f"ss_network_{name}"]) for name in ("dim", "alpha", "dropout")] == [8, 16, 0.1]
    assert (header["ss_base_model_version"], header["modelspec.prediction_type"]) == ("sd_v2", "epsilon")


def test_merging_goes_from_one_model_to_the_other(studio: Host) -> None:
    graph = small("model_merge_then_generate")
    first, merged, second = columns(picture(queue(studio, graph), graph), 3)
    assert differ(first, second) and differ(first, merged) and differ(second, merged)
    share = graph[node_of(graph, "PrimitiveFloat")]["inputs"]
    for value, expected in ((1.0, first), (0.0, second)):
        share["value"] = value
        assert np.array_equal(columns(picture(queue(studio, graph), graph), 3)[1], expected)


def test_a_lora_is_converted_and_applied_in_the_graph(studio: Host) -> None:
    """Convert LoRA: kohya to PEFT and back, and straight from the node to Apply LoRA, without a file between."""
    graph = small("sdxl_lightning_lora_2_steps")
    expected = picture(queue(studio, graph), graph)
    source = graph[node_of(graph, "LoraLoaderModelOnly")]["inputs"]["lora_name"]
    names = []
    for lora, form in ((source, "peft"), ("PEFT: there", "kohya")):
        name = "there" if form == "peft" else "back"
        done = queue(studio, {"1": {"class_type": "AtelierConvertLora", "inputs": {"lora": lora, "form": form,
                                                                                  "name": name}}})
        assert "27 of 27 keys matched" in done.text("1") or "18 of 18 keys matched" in done.text("1")
        names.append(name)
    assert (studio.base / "models" / "loras" / "there" / "adapter_config.json").is_file()
    lora = node_of(graph, "LoraLoaderModelOnly")
    graph[lora]["inputs"]["lora_name"] = "back.safetensors"
    assert np.array_equal(picture(queue(studio, graph), graph), expected)
    checkpoint = node_of(graph, "CheckpointLoaderSimple")
    graph["convert"] = {"class_type": "AtelierConvertLora", "inputs": {"lora": source, "form": "diffusers", "name": ""}}
    graph[lora] = {"class_type": "AtelierApplyLora", "inputs": {
        "model": [checkpoint, 0], "clip": [checkpoint, 1], "lora": ["convert", 1], "strength_model": 1.0,
        "strength_clip": 1.0}}
    assert np.array_equal(picture(queue(studio, graph), graph), expected)
    assert (studio.base / "models" / "loras" / f"{Path(source).stem}-diffusers.safetensors").is_file()
