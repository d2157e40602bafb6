"""Training in a running ComfyUI: cancel, resume, reuse, and messages to the user."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.graphs import Graph
from kit.host import Event, Host, Result
from kit.shapes import draw_shapes
from safetensors import safe_open
from safetensors.torch import load_file

pytestmark = [pytest.mark.host, pytest.mark.slow]


@pytest.fixture
def pictures(host: Host, request: pytest.FixtureRequest) -> Path:
    """A folder of pictures for this test alone, in the host's input folder."""
    return draw_shapes(host.base / "input" / request.function.__name__)


def training(checkpoint: str, pictures: Path, name: str, steps: int, **options: Any) -> Graph:
    """A graph that trains a small LoRA; node ids: model, data, options, train."""
    return Graph(
        model=("AtelierOpenModel", {"model": checkpoint, "prediction_type": "auto"}),
        data=("AtelierImageFolder", {"folder": pictures.name, "resolution": 64}),
        lora=("AtelierLoraConfig", {"rank": 4}),
        options=("AtelierTrainingOptions", {"monitor": "off", "patience": 0, **options}),
        train=("AtelierTrainLora", {"model": ["model", 0], "training_set": ["data", 0], "lora_config": ["lora", 0],
                                    "options": ["options", 0], "name": name, "length": steps,
                                    "sample_prompt": "" if "sample_prompt" in options else "none"}))


def loaded(graph: Graph, checkpoint: str) -> Graph:
    """The graph with the model as core's loader gives it."""
    graph.nodes["core"] = ("CheckpointLoaderSimple", {"ckpt_name": checkpoint})
    graph.nodes["model"] = ("AtelierLoadedModel", {"model": ["core", 0], "clip": ["core", 1], "vae": ["core", 2]})
    return graph


def steps_shown(result: Result, total: int) -> list[int]:
    """Training steps, of `total`, that the node's progress bar showed.

    The host always shows the first and the last, and as many between as it has time for.
    """
    return [data["value"] for data in result.kinds("progress") if data["node"] == "train" and data["max"] == total]


def when_step(number: int, act: Any) -> Any:
    """Call `act` once, when training has reached step `number`."""
    done: list[bool] = []

    def watch(event: Event) -> None:
        if event.kind == "atelier.training" and not done and event.data["values"].get("step", 0) >= number:
            done.append(True)
            act()
    return watch


def lora(host: Host, name: str) -> dict[str, torch.Tensor]:
    """Load a LoRA file, which must exist and be sound."""
    state = load_file(host.base / "models" / "loras" / f"{name}.safetensors")
    assert state
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert any(tensor.abs().max() > 0 for key, tensor in state.items() if "lora_up" in key or "lora_B" in key)
    return state


def check_unbroken(host: Host, graph: dict[str, Any], name: str, steps: int, resumed: dict[str, torch.Tensor]) -> None:
    """The same request without a run to resume, in one unbroken run, gives the same file bit for bit."""
    shutil.rmtree(host.base / "user" / "atelier" / "runs")
    (host.base / "models" / "loras" / f"{name}.safetensors").unlink()
    host.free()
    assert steps_shown(host.queue(graph), steps)[0] == 1
    assert all(torch.equal(value, resumed[key]) for key, value in lora(host, name).items())


def steps_trained(host: Host, name: str) -> int:
    """The number of steps in a LoRA file's header."""
    with safe_open(host.base / "models" / "loras" / f"{name}.safetensors", framework="pt") as file:
        return int(file.metadata()["ss_steps"])


def test_cancel_keeps_the_work_and_a_new_run_goes_on(host: Host, checkpoint: str, pictures: Path) -> None:
    graph = training(checkpoint, pictures, "cancelled", 30).fill(host)
    first = host.queue(graph, when_step(5, host.interrupt))
    assert first.status == "interrupted"
    assert first.kinds("atelier.training")[-1]["status"] == "cancelled"
    partial, done = lora(host, "cancelled-partial"), steps_trained(host, "cancelled-partial")
    assert 5 <= done < 30
    assert not (host.base / "models" / "loras" / "cancelled.safetensors").exists()

    second = host.queue(graph)
    assert second.status == "success", second.error
    assert steps_shown(second, 30)[0] == done + 1, "it began anew"
    assert "complete after 30 of 30 steps" in second.text("train")
    finished = lora(host, "cancelled")
    assert any(not torch.equal(finished[key], partial[key]) for key in finished)
    assert not (host.base / "models" / "loras" / "cancelled-partial.safetensors").exists()

    check_unbroken(host, graph, "cancelled", 30, finished)


def test_a_finished_run_is_not_repeated_until_a_picture_changes(host: Host, checkpoint: str, pictures: Path) -> None:
    graph = training(checkpoint, pictures, "reused", 7).fill(host)
    first = host.queue(graph)
    assert first.status == "success", first.error
    assert "reused from" not in first.text("train")
    before = lora(host, "reused")

    again = host.queue(graph)
    assert "train" not in again.ran(), "the host's own cache should have answered"

    host.free()
    afresh = host.queue(graph)
    assert "train" in afresh.ran()
    assert "reused from an earlier run" in afresh.text("train")
    assert not steps_shown(afresh, 7)

    draw_shapes(pictures, count=1, seed=9)
    changed = host.queue(graph)
    assert {"data", "train"} <= changed.ran()
    assert steps_shown(changed, 7)[0] == 1
    assert "reused from" not in changed.text("train")
    after = lora(host, "reused-2")
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert all(torch.equal(lora(host, "reused")[key], before[key]) for key in before), "an older file was touched"


def test_what_is_shown_while_training(host: Host, checkpoint: str, pictures: Path) -> None:
    graph = training(checkpoint, pictures, "shown", 6, sample_prompt="a red circle", sample_every=3, sample_steps=2,
                     save_every=4)
    graph.nodes["saved"] = ("PreviewAny", {"source": ["train", 5]})
    result = host.queue(graph.fill(host))
    assert result.status == "success", result.error
    bars = [data for data in result.kinds("progress") if data["node"] == "train"]
    assert any(data["value"] == data["max"] == 6 for data in bars)
    shown = [data["samples"] for data in result.kinds("atelier.training") if data["status"] == "running"]
    assert any(3 in samples for samples in shown), "no sample picture while training"
    measured = [point for data in result.kinds("atelier.training") for point in data["losses"]]
    assert [step for step, _ in measured] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(loss) for _, loss in measured)
    assert result.kinds("atelier.training")[-1]["status"] == "complete", "the end comes after the host's"
    plot, *samples = result.pictures("train")
    assert plot.std() > 5
    assert len(samples) >= 2
    assert all(sample.shape == (64, 64, 3) and sample.std() > 1 for sample in samples)
    assert "6 of 6 steps" in result.text("train")
    assert result.text("saved").split() == ["shown-000004.safetensors", "shown.safetensors"]
    assert [steps_trained(host, "shown-000004"), steps_trained(host, "shown")] == [4, 6]


@pytest.fixture
def fragile_host(tmp_path: Path) -> Iterator[Host]:
    """A host for this test alone, to be killed."""
    with Host(tmp_path / "fragile") as running:
        yield running


def test_a_killed_process_loses_only_the_work_since_the_last_save(
        fragile_host: Host, put_checkpoint: Callable[[Host], str], put_flow_checkpoint: Callable[[Host], str]) -> None:
    host = fragile_host
    pictures = draw_shapes(host.base / "input" / "killed")
    # Too long to end before it is killed or stopped.
    graph = training(put_checkpoint(host), pictures, "killed", 5000, save_every=4).fill(host)
    lost = host.queue(graph, when_step(9, host.kill))
    assert lost.status == "lost"
    assert not list((host.base / "models" / "loras").glob("*.safetensors"))

    def stop(event: Event) -> None:
        if event.kind == "progress" and event.data["max"] == 5000:
            host.post("/atelier/training/stop", {})

    host.start()
    resumed = host.queue(graph, stop)
    assert resumed.status == "success", resumed.error
    assert steps_shown(resumed, 5000)[0] > 8
    lora(host, "killed")

    # The same with a model that core has loaded; and what it ends with is what an unbroken run ends with.
    checkpoint = put_flow_checkpoint(host)
    graph = loaded(training(checkpoint, pictures, "flow", 60, save_every=4), checkpoint).fill(host)
    assert host.queue(graph, when_step(9, host.kill)).status == "lost"
    assert not list((host.base / "models" / "loras").glob("flow*"))
    host.start()
    resumed = host.queue(graph)
    assert resumed.status == "success", resumed.error
    assert 8 < steps_shown(resumed, 60)[0] < 60
    check_unbroken(host, graph, "flow", 60, lora(host, "flow"))

    graph = loaded(training(checkpoint, pictures, "kept", 5000), checkpoint).fill(host)
    kept = host.queue(graph, stop)
    assert kept.status == "success", kept.error
    assert 1 <= steps_trained(host, "kept") < 5000
    lora(host, "kept")
    assert not list(host.base.rglob("*.part")), "half files are left"


@pytest.mark.parametrize(("status", "changes", "says"), [
    # Rejected before the run, so that the editor marks the node. Output nodes that do not depend on it still run.
    ("rejected", {"data": {"folder": "no such folder"}}, r"no such folder is not a folder\. Type an existing folder"),
    ("rejected", {"train": {"name": "../escape"}}, r"'\.\./escape' cannot be a file name\. Use letters"),
    ("error", {"options": {"patience": 3}}, r"monitor and patience .* Early stopping needs"),
    ("error", {"data": {"captions": "template", "caption": "{nonsense}"}}, r"unknown field \{nonsense\}"),
])
def test_a_mistake_is_answered_in_one_sentence(host: Host, checkpoint: str, pictures: Path, status: str,
                                               changes: dict[str, Any], says: str) -> None:
    graph = training(checkpoint, pictures, "mistake", 3)
    assert graph.nodes.keys() >= changes.keys()
    for node, values in changes.items():
        graph.change(node, **values)
    result = host.queue(graph.fill(host))
    assert result.status == status
    assert re.search(says, result.error), result.error
    assert "\n" not in result.error
    assert "Traceback" not in result.error


def test_a_damaged_picture_is_named(host: Host, checkpoint: str, pictures: Path) -> None:
    (pictures / "broken.png").write_bytes((pictures / "00.png").read_bytes()[:60])
    (pictures / "broken.txt").write_text("a broken one", encoding="utf-8")
    result = host.queue(training(checkpoint, pictures, "damaged", 3).fill(host))
    assert result.status == "error"
    assert "broken.png" in result.error
    assert not (host.base / "models" / "loras" / "damaged.safetensors").exists()


@pytest.mark.parametrize(("kind", "prefix"), [("diffusion", "lora_unet_"), ("flow", "diffusion_model.joint_blocks.")])
def test_a_model_that_core_has_loaded_is_trained_and_its_lora_loaded_by_core(
        host: Host, checkpoint: str, put_flow_checkpoint: Callable[[Host], str], kind: str, prefix: str) -> None:
    checkpoint = put_flow_checkpoint(host) if kind == "flow" else checkpoint
    name = f"loaded {kind}"
    pictures = draw_shapes(host.base / "input" / name)
    steps = 30 if kind == "flow" else 3
    graph = loaded(training(checkpoint, pictures, name, steps, sample_prompt="a red circle", sample_steps=2),
                   checkpoint)
    begun = 0
    if kind == "flow":  # cancelled first; the other test of that has the same model by the other way
        assert host.queue(graph.fill(host), when_step(3, host.interrupt)).status == "interrupted"
        begun = steps_trained(host, f"{name}-partial")
        assert 3 <= begun < steps
        lora(host, f"{name}-partial")
    result = host.queue(graph.fill(host))
    assert result.status == "success", result.error
    assert steps_shown(result, steps)[0] == begun + 1
    assert len(result.pictures("train")) >= 2  # the curve, and a sample of the finished LoRA
    state = lora(host, name)
    assert all(key.startswith(prefix) for key in state)
    latent = "EmptySD3LatentImage" if kind == "flow" else "EmptyLatentImage"
    drawing = {
        "text": ("CLIPTextEncode", {"clip": ["core", 1], "text": "a red circle"}),
        "latent": (latent, {"width": 64, "height": 64}),
        "tuned": ("LoraLoader", {"model": ["core", 0], "clip": ["core", 1], "lora_name": f"{name}.safetensors",
                                 "strength_model": 1.0, "strength_clip": 1.0})}
    pair = Graph(core=graph.nodes["core"], **drawing)
    for side, source in (("base", "core"), ("lora", "tuned")):
        pair.nodes[side] = ("KSampler", {"model": [source, 0], "positive": ["text", 0], "negative": ["text", 0],
                                         "latent_image": ["latent", 0], "steps": 2, "seed": 1, "cfg": 1.0})
        pair.nodes[f"{side}_pixels"] = ("VAEDecode", {"samples": [side, 0], "vae": ["core", 2]})
        pair.nodes[f"{side}_shown"] = ("PreviewImage", {"images": [f"{side}_pixels", 0]})
    drawn = host.queue(pair.fill(host))
    assert drawn.status == "success", drawn.error
    base, tuned = (drawn.pictures(f"{side}_shown")[0] for side in ("base", "lora"))
    assert base.std() > 5
    assert np.any(base != tuned)
    assert "lora key not loaded" not in host.log()
