"""Models compared in a running ComfyUI: by the host's own nodes, scored as by hand, resumed after a cancel."""

from __future__ import annotations

import csv
import io
import os
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from kit.clip_models import clip_config, random_clip, save_clip
from kit.graphs import Graph
from kit.host import Event, Host
from PIL import Image
from safetensors.torch import load_file, save_file

from atelier.score.load import open_scorer

pytestmark = [pytest.mark.host, pytest.mark.slow]

PROMPTS = ["a red circle", "a green square, from above"]


@pytest.fixture(scope="module")
def models(host: Host, checkpoint: str) -> dict[str, str]:
    """Names of a checkpoint, of the same under another name, of a LoRA, and of a CLIP model."""
    folder = host.base / "models"
    twin = folder / "checkpoints" / "twin ü.safetensors"
    os.link(folder / "checkpoints" / checkpoint, twin)
    numbers = torch.Generator().manual_seed(0)
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_v"
    (folder / "loras").mkdir(exist_ok=True)
    save_file({f"{layer}.lora_up.weight": torch.randn(320, 4, generator=numbers),
               f"{layer}.lora_down.weight": torch.randn(4, 320, generator=numbers)},
              folder / "loras" / "loud.safetensors")
    if not (folder / "clip_score" / "tiny clip").exists():
        save_clip(folder / "clip_score" / "tiny clip", random_clip(clip_config()))
    return {"checkpoint": checkpoint, "twin": twin.name, "lora": "loud.safetensors", "clip": "tiny clip"}


def graph(models: dict[str, str], **inputs: Any) -> Graph:
    """The checkpoint, with the LoRA, and its twin; two steps and small pictures."""
    fast = {"sampler": "euler", "scheduler": "normal", "steps": 2, "cfg": 5.0}
    return Graph(
        plain=("AtelierModelToCompare", {"checkpoint": models["checkpoint"], **fast}),
        tuned=("AtelierModelToCompare", {"checkpoint": models["checkpoint"], "lora": models["lora"], "strength": 0.8,
                                         "others": ["plain", 0], **fast}),
        twin=("AtelierModelToCompare", {"checkpoint": models["twin"], "label": "the twin", "others": ["tuned", 0],
                                        **fast}),
        compare=("AtelierCompareModels", {"models": ["twin", 0], "prompts": "\n".join(PROMPTS), "seeds": 1, "seed": 4,
                                          "width": 64, "height": 64, "score_model": models["clip"], "cell": 0,
                                          **inputs}),
        grid=("PreviewImage", {"images": ["compare", 0]}), chart=("PreviewImage", {"images": ["compare", 1]}),
        table=("PreviewAny", {"source": ["compare", 2]}), csv=("PreviewAny", {"source": ["compare", 3]}),
        pictures=("PreviewImage", {"images": ["compare", 4]}))


def kept(host: Host) -> dict[str, int]:
    """The pictures kept so far and when they were written."""
    folder = host.base / "user" / "atelier" / "comparisons"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}


def forget(host: Host) -> None:
    shutil.rmtree(host.base / "user" / "atelier" / "comparisons", ignore_errors=True)
    host.free()


def test_the_pictures_are_the_hosts_and_the_numbers_those_by_hand(host: Host, models: dict[str, str]) -> None:
    forget(host)
    logged = len(host.log())
    result = host.queue(graph(models).fill(host))
    assert result.status == "success", result.error
    assert host.log()[logged:].count("model weight dtype") == 2, "each checkpoint is loaded once, for LoRAs too"
    pictures = result.pictures("pictures")
    assert len(pictures) == 6 == len(kept(host))
    plain, tuned, twin = pictures[0:2], pictures[2:4], pictures[4:6]
    assert all(np.array_equal(a, b) for a, b in zip(plain, twin, strict=True))
    assert all(a.std() > 5 and np.abs(a.astype(int) - b).mean() > 1 for a, b in zip(plain, tuned, strict=True))
    # One of them by core's nodes alone.
    core = Graph(load=("CheckpointLoaderSimple", {"ckpt_name": models["checkpoint"]}),
                 lora=("LoraLoader", {"model": ["load", 0], "clip": ["load", 1], "lora_name": models["lora"],
                                      "strength_model": 0.8, "strength_clip": 0.8}),
                 text=("CLIPTextEncode", {"clip": ["lora", 1], "text": PROMPTS[1]}),
                 not_=("CLIPTextEncode", {"clip": ["lora", 1], "text": "low quality, blurry"}),
                 empty=("EmptyLatentImage", {"width": 64, "height": 64}),
                 sample=("KSampler", {"model": ["lora", 0], "positive": ["text", 0], "negative": ["not_", 0],
                                      "latent_image": ["empty", 0], "seed": 4, "steps": 2, "cfg": 5.0,
                                      "sampler_name": "euler", "scheduler": "normal"}),
                 decode=("VAEDecode", {"samples": ["sample", 0], "vae": ["load", 2]}),
                 show=("PreviewImage", {"images": ["decode", 0]}))
    alone = host.queue(core.fill(host)).pictures("show")[0]
    assert np.abs(alone.astype(int) - tuned[1]).max() <= 1  # the host truncates to 8 bits, the pack rounds
    # The scores computed by hand, from the cached pictures.
    rows = list(csv.DictReader(io.StringIO(result.text("csv"))))
    scorer = open_scorer(host.base / "models" / "clip_score" / "tiny clip")
    by_hand = scorer.score([Image.fromarray(p) for p in pictures], PROMPTS * 3)
    assert [float(row["score"]) for row in rows] == pytest.approx([item.value for item in by_hand.items], abs=1e-6)
    assert [row["model"] for row in rows] == ["small"] * 2 + ["small + loud at 0.8"] * 2 + ["the twin"] * 2
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert [row["loading"] for row in rows] == ["1", "0"] * 3  # as a model's first picture has it in its time
    table = result.text("table")
    assert "too few pairs to tell" in table and "tiny clip, cosine" in table and PROMPTS[1] in table
    grid, = result.pictures("grid")
    assert np.abs(grid[48:48 + 64, 170:170 + 64].astype(int) - plain[0]).max() <= 1
    assert result.pictures("chart")[0].std() > 5
    # Another label reuses the same pictures.
    before = kept(host)
    again = host.queue(graph(models).change("plain", label="first").fill(host))
    assert again.status == "success" and kept(host) == before
    assert "first" in again.text("table")


def test_a_cancelled_run_goes_on_with_the_pictures_it_has(host: Host, models: dict[str, str]) -> None:
    forget(host)

    def cancel(event: Event) -> None:
        if event.kind == "executing" and len(kept(host)) >= 2:
            host.interrupt()

    made = graph(models, seed=90).fill(host)
    cut = host.queue(made, on_event=cancel)
    assert cut.status == "interrupted"
    before = kept(host)
    assert 2 <= len(before) < 6
    done = host.queue(made)
    assert done.status == "success", done.error
    assert len(kept(host)) == 6
    assert {name: kept(host)[name] for name in before} == before
    assert not list((host.base / "user" / "atelier" / "comparisons").glob("*.part"))


def test_one_more_seed_makes_only_its_own_pictures(host: Host, models: dict[str, str]) -> None:
    forget(host)
    alone = graph(models, prompts=PROMPTS[0], score_model="none").change("compare", models=["plain", 0]).fill(host)
    for name in ("tuned", "twin"):
        del alone[name]
    first = host.queue(alone)
    assert first.status == "success", first.error
    assert first.text("table").split("\n")[0].split() == ["model", "s/picture", "peak", "GB"]
    before = kept(host)
    alone["compare"]["inputs"]["seeds"] = 2
    second = host.queue(alone)
    assert second.status == "success" and len(kept(host)) == 2 and set(before) < set(kept(host))
    assert np.array_equal(first.pictures("pictures")[0], second.pictures("pictures")[0])


def test_lower_precision_is_a_model_of_its_own(host: Host, models: dict[str, str]) -> None:
    made = graph(models, prompts=PROMPTS[0], score_model="none").change("compare", models=["tuned", 0])
    made.change("tuned", lora="none", strength=1.0, precision="bf16").nodes.pop("twin")
    result = host.queue(made.fill(host))
    assert result.status == "success", result.error
    full, lower = (found.astype(int) for found in result.pictures("pictures"))
    assert 0 < np.abs(full - lower).mean() < 20
    assert "small, bf16" in result.text("table")


def test_a_lora_from_another_node_and_one_that_changed(host: Host, models: dict[str, str]) -> None:
    """Under its old name, a file with other weights is another LoRA; the pictures of before are not shown for it."""
    forget(host)
    made = graph(models, prompts=PROMPTS[0], score_model="none").change("compare", models=["tuned", 0])
    made.nodes.pop("twin")
    before = host.queue(made.fill(host))
    assert before.status == "success", before.error
    plain, tuned = before.pictures("pictures")
    made.change("tuned", lora="none", lora_name=["name", 0]).nodes["name"] = (
        "PrimitiveString", {"value": models["lora"]})
    linked = host.queue(made.fill(host))
    assert linked.status == "success" and np.array_equal(linked.pictures("pictures")[1], tuned)
    made.change("tuned", lora=models["lora"]).nodes.pop("name")
    made.nodes["tuned"][1].pop("lora_name")
    assert np.array_equal(host.queue(made.fill(host)).pictures("pictures")[1], tuned)
    file = host.base / "models" / "loras" / models["lora"]
    save_file({name: 2 * weight for name, weight in load_file(file).items()}, file)
    after = host.queue(made.fill(host)).pictures("pictures")
    assert np.array_equal(after[0], plain)
    assert np.abs(after[1].astype(int) - tuned).mean() > 1


def test_mistakes_reach_the_user(host: Host, models: dict[str, str]) -> None:
    failed = host.queue(graph(models, prompts=" \n ").fill(host))
    assert failed.status == "error" and "no prompts to compare with" in failed.error


def test_an_xy_grid_has_the_pictures_of_single_runs_and_draws_only_what_is_missing(host: Host, models: dict[str, str]
                                                                                    ) -> None:
    forget(host)
    made = graph(models, prompts=PROMPTS[0], score_model="none", seed=7)
    alone = Graph(plain=made.nodes["plain"], **{name: made.nodes[name] for name in ("compare", "pictures")})
    alone.change("compare", models=["plain", 0])

    def xy(**inputs: Any) -> dict[str, Any]:
        return Graph(plain=made.nodes["plain"], xy=("AtelierXYGrid", {
            "models": ["plain", 0], "x": "lora", "x_values": "none, loud*", "y": "cfg", "y_values": "5, 2",
            "prompt": PROMPTS[0], "seed": 7, "width": 64, "height": 64, "score_model": models["clip"], "cell": 0,
            **inputs}), grid=("PreviewImage", {"images": ["xy", 0]}), table=("PreviewAny", {"source": ["xy", 1]}),
            csv=("PreviewAny", {"source": ["xy", 2]}), pictures=("PreviewImage", {"images": ["xy", 3]})).fill(host)

    single = host.queue(alone.fill(host))
    assert single.status == "success", single.error
    before = kept(host)
    assert len(before) == 1

    def cancel(event: Event) -> None:
        if event.kind == "executing" and len(kept(host)) >= 3:
            host.interrupt()

    assert host.queue(xy(), on_event=cancel).status == "interrupted"
    cut = kept(host)
    assert 3 <= len(cut) < 4
    result = host.queue(xy())
    assert result.status == "success", result.error
    assert len(kept(host)) == 4
    assert {name: kept(host)[name] for name in cut} == cut, "no cell is drawn twice, nor one that a comparison has"
    pictures = result.pictures("pictures")
    assert np.array_equal(pictures[0], single.pictures("pictures")[0])
    tuned = host.queue(alone.change("plain", lora=models["lora"], strength=1.0, cfg=2.0).fill(host))
    assert np.array_equal(pictures[3], tuned.pictures("pictures")[0])
    assert len(kept(host)) == 4
    scorer = open_scorer(host.base / "models" / "clip_score" / "tiny clip")
    values = [item.value for item in scorer.score([Image.fromarray(p) for p in pictures], PROMPTS[0]).items]
    rows = [line.split() for line in result.text("table").splitlines()[:4]]
    assert [[float(text) for text in row[-3:]] for row in rows[1:]] == [
        pytest.approx(numbers, abs=6e-5) for numbers in (
            [values[0], values[1], (values[0] + values[1]) / 2], [values[2], values[3], (values[2] + values[3]) / 2],
            [(values[0] + values[2]) / 2, (values[1] + values[3]) / 2, sum(values) / 4])]
    listed = [float(row["score"]) for row in csv.DictReader(io.StringIO(result.text("csv")))]
    assert sorted(listed) == pytest.approx(sorted(values), abs=6e-5)
    drawn, = result.pictures("grid")
    assert np.abs(drawn[48:112, 170:234].astype(int) - pictures[0]).max() <= 1
