"""The shipped workflows in the real host, their pictures checked by pixels.

The host's environment holds keys, and the language model is asked with them; the last tests look for the keys in
everything that was shown, written and sent.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from kit.canary import KEYS, leaks, traces, watched
from kit.clip_models import reference_cosines
from kit.fake_llm import GOOD, FakeLlm
from kit.graphs import FIRST_RELEASE, load_graph
from kit.host import Host, Result
from kit.small_workflows import SIZE, node_of, saved, small, supply
from PIL import Image
from safetensors import safe_open

from tools.workflows import read_api

pytestmark = [pytest.mark.host, pytest.mark.slow]

CAT = "a cat wearing neon-glasses"
WORKFLOWS = ("finetune_then_generate", "grid_among_photographs", "learn_an_art_style",
             "grid_of_generated_pictures", "prompts_by_a_language_model", "image_to_image", "guidance_sweep")
"""Those for which `supply` has all files; other tests run the rest, in hosts that are searched for keys too."""


@dataclass(frozen=True)
class Run:
    graph: dict[str, Any]
    result: Result


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeLlm]:
    with FakeLlm() as server:
        yield server


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, put_checkpoint: Callable[..., str], fake: FakeLlm
           ) -> Iterator[Host]:
    """A host with the files that the workflows name, keys in its environment, and permission to send them to `fake`."""
    host = Host(tmp_path_factory.mktemp("ein stüdio"))
    put_checkpoint(host, "v1-5-pruned-emaonly-fp16.safetensors")
    supply(host)
    file = host.base / "user" / "atelier" / "credentials.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f'[{name}]\nbase_urls = ["{fake.base_url}"]\n' for name in KEYS), encoding="utf-8")
    file.chmod(0o600)
    with watched(host):
        yield host


@pytest.fixture(scope="module")
def run(studio: Host, fake: FakeLlm) -> Callable[[str], Run]:
    """Run each workflow once for all tests."""
    done: dict[str, Run] = {}

    def once(name: str) -> Run:
        if name not in done:
            studio.free()  # the models of the workflow before would stay there beside those of this one
            graph = small(name, fake)
            result = studio.queue(graph)
            assert result.status == "success", result.error
            done[name] = Run(graph, result)
        return done[name]
    return once


def test_a_graph_of_the_first_release_runs(studio: Host, fake: FakeLlm) -> None:
    """It holds a value in every widget of Training Options and knows no sample prompt on Train LoRA."""
    graph = load_graph(FIRST_RELEASE / "finetune_then_generate.api.json")
    result = studio.queue(small("finetune_then_generate", fake, graph))
    assert result.status == "success", result.error
    check_pictures(result.pictures(node_of(graph, "SaveImage")))


@dataclass(frozen=True)
class Grid:
    """A saved grid split by its manifest: pixels and origins, in the order of the pictures."""

    picture: np.ndarray
    about: dict[str, Any]
    unique: list[np.ndarray]
    unique_origins: list[dict[str, Any]]
    fillers: list[np.ndarray]
    filler_origins: list[dict[str, Any]]


def grid(host: Host, title: str) -> Grid:
    picture, about = saved(host, title)
    pixels = np.asarray(picture.convert("RGB"))
    cells = sorted(about["grid"]["cells"], key=lambda cell: cell["picture"])
    parts: dict[str, list[Any]] = {"unique": [], "filler": []}
    for cell in cells:
        box = cell["box"]
        assert (box["width"], box["height"]) == (SIZE, SIZE)
        parts[cell["kind"]].append((pixels[box["y"]:box["y"] + SIZE, box["x"]:box["x"] + SIZE], cell["origin"]))
    return Grid(pixels, about, *([part[place] for part in parts[kind]] for kind in ("unique", "filler")
                                 for place in (0, 1)))


def check_pictures(pictures: list[np.ndarray]) -> None:
    """Check that none is uniform and no two are the same."""
    for number, picture in enumerate(pictures):
        assert picture.std() > 5, "an even picture: NaN, or nothing denoised"
        assert len(np.unique(picture)) > 50
        assert all(np.abs(picture.astype(int) - other).mean() > 1 for other in pictures[:number]), number


def check_unique(host: Host, made: Run, found: Grid, prompt: str) -> None:
    """Four pictures of one prompt, shown with their scores, which are transformers' own."""
    check_pictures(found.unique)
    shown = made.result.pictures(node_of(made.graph, "PreviewImage"))
    for picture, cell in zip(shown, found.unique, strict=True):
        assert np.array_equal(picture[:SIZE], cell), "the very pixels"
    assert {(origin["prompt"], origin["seed"]) for origin in found.unique_origins} == {(prompt, 7)}
    reference = reference_cosines(host.base / "models" / "clip_score" / "open_clip_model.safetensors",
                                  [Image.fromarray(cell) for cell in found.unique], [CAT] * 4)
    assert [origin["score"] for origin in found.unique_origins] == pytest.approx(reference.tolist(), abs=1e-4)
    assert reference.std() > 1e-3, "the comparison must be able to fail"
    assert f"{reference.mean():.4f}" in made.result.text(node_of(made.graph, "AtelierCLIPScore"))


def check_blocks(found: Grid) -> None:
    """2 × 2 blocks of 2 × 2 cells with the usual gaps, white between."""
    assert found.picture.shape == (15 + 132 + 10 + 132 + 15,) * 2 + (3,)
    assert len(found.unique) == 4 and len(found.fillers) == 12
    covered = np.zeros(found.picture.shape[:2], dtype=bool)
    for cell in found.about["grid"]["cells"]:
        box = cell["box"]
        covered[box["y"]:box["y"] + SIZE, box["x"]:box["x"] + SIZE] = True
    assert covered.sum() == 16 * SIZE * SIZE and (found.picture[~covered] == 255).all()


def check_photos(host: Host, found: Grid) -> None:
    """Twelve different files of the folder, unchanged."""
    assert len({origin["source"] for origin in found.filler_origins}) == 12
    for cell, origin in zip(found.fillers, found.filler_origins, strict=True):
        with Image.open(host.base / "input" / "flickr8k" / origin["source"]) as file:
            assert np.array_equal(cell, np.asarray(file))


@pytest.mark.parametrize("name", ["grid_among_photographs", "learn_an_art_style",
                                  "grid_of_generated_pictures"])
def test_the_approaches_ship_with_64_pictures_and_the_prompt(name: str) -> None:
    graph = read_api(name)
    values = [value for node in graph.values() for value in node["inputs"].values()]
    assert CAT in values and values.count(16) == 1 and values.count(48) == 1  # 4 × 4 blocks: 16 and three times 16
    grids = graph[node_of(graph, "AtelierBlockGrid")]["inputs"]
    assert (grids["block"], grids["columns"], grids["placement"], grids["gaps"]) == (
        2, 0, "random", "4 px inside, 10 px between, 15 px margin")


def test_approach_1_pretrained_with_photo_fillers(studio: Host, run: Callable[[str], Run]) -> None:
    made = run("grid_among_photographs")
    found = grid(studio, "A cat wearing neon-glasses, photo fillers")
    check_blocks(found)
    check_unique(studio, made, found, CAT)
    check_photos(studio, found)
    text = (studio.base / "output" / "atelier" / "A cat wearing neon-glasses, photo fillers.txt").read_text("utf-8")
    assert text.startswith(CAT) and "Seed: 7" in text and "Model: sd-v1-4" in text


def test_approach_2_learns_a_style_and_draws_with_it(studio: Host, run: Callable[[str], Run], fake: FakeLlm) -> None:
    made = run("learn_an_art_style")
    title = "A cat wearing neon-glasses, impressionist pencil"
    found = grid(studio, title)
    prompt = f"{CAT}, impressionist style converted to pencil drawing, detailed graphite art, intricate shading"
    check_blocks(found)
    check_unique(studio, made, found, prompt)
    check_photos(studio, found)
    assert found.about["negative"] == "low quality, bad anatomy, worst quality, low resolution"
    # The reference recipe, on the class by its name, captions from the columns there are.
    with safe_open(studio.base / "models" / "loras" / "impressionist-pencil.safetensors", framework="pt") as file:
        header = file.metadata()
    assert [float(header[f"ss_network_{name}"]) for name in ("dim", "alpha", "dropout")] == [8, 16, 0.1]
    assert (header["ss_learning_rate"], header["ss_base_model_version"]) == ("0.0001", "sd_v2")
    captions, = (studio.base / "user" / "atelier" / "hub").glob("*/captions.json")
    end = "detailed pencil drawing, graphite art, intricate shading"
    assert list(json.loads(captions.read_text(encoding="utf-8")).values()) == [
        [f"pencil sketch of impressionist painting 'artwork' by {artist}, {end}"]
        for artist in ("claude-monet", "mary-cassatt")]
    # Without the LoRA the pictures differ, and nothing is trained again.
    graph = copy.deepcopy(made.graph)
    graph[node_of(graph, "AtelierApplyLora")]["inputs"] |= {"strength_model": 0.0, "strength_clip": 0.0}
    graph[node_of(graph, "AtelierSaveTitled")]["inputs"]["title"] = "without"
    base = studio.queue(graph)
    assert base.status == "success", base.error
    assert node_of(graph, "AtelierTrainLora") not in base.ran()
    for cell, without in zip(found.unique, grid(studio, "without").unique, strict=True):
        assert not np.array_equal(cell, without), "the LoRA changes nothing"


def test_approach_3_fills_the_grid_with_pictures_of_written_prompts(studio: Host, run: Callable[[str], Run],
                                                                    fake: FakeLlm) -> None:
    made = run("grid_of_generated_pictures")
    found = grid(studio, "A cat wearing neon-glasses, all generated")
    check_blocks(found)
    check_unique(studio, made, found, CAT)
    check_pictures([*found.unique, *found.fillers])
    prompts = [origin["prompt"] for origin in found.filler_origins]
    shown = made.result.text(node_of(made.graph, "AtelierRandomArtPrompts"))
    assert len(set(prompts)) == 12 and all(prompt in shown for prompt in prompts)
    assert "By gemini-2.5-flash" in shown and "offline" not in shown
    assert any("Write 12 prompts" in request.body["messages"][-1]["content"] for request in fake.requests)


def test_chatgpt_prompts_base_vs_lora(studio: Host, run: Callable[[str], Run], fake: FakeLlm) -> None:
    run("prompts_by_a_language_model")
    found = grid(studio, GOOD["title"])
    check_pictures(found.unique)
    assert [origin["label"] for origin in found.unique_origins] == ["base", "with the LoRA"]
    assert found.about["prompt"] == GOOD["positive"] and found.about["negative"] == GOOD["negative"]
    asked, = [request for request in fake.requests if CAT in request.body["messages"][-1]["content"]]
    assert len(asked.body["messages"]) > 10, "five examples: an idea and an answer each"
    assert asked.headers["authorization"] == f"Bearer {KEYS['OPENAI_API_KEY']}"


def test_image_to_image_in_10_and_40_steps(studio: Host, run: Callable[[str], Run]) -> None:
    made = run("image_to_image")
    found = grid(studio, "10 and 40 steps")
    check_pictures(found.unique)
    assert [origin["label"] for origin in found.unique_origins] == ["your picture", "10 steps", "40 steps"]
    with Image.open(studio.base / "input" / "example.png") as file:  # 120 × 90
        source = file.crop((15, 0, 105, 90)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    assert np.abs(found.unique[0].astype(int) - np.asarray(source)).mean() < 2
    lines = made.result.text(node_of(made.graph, "AtelierCLIPScore")).splitlines()
    assert "likeness" in "\n".join(lines) and sum("1.0000" in line for line in lines) == 1, "the picture to itself"


def test_the_guidance_sweep_draws_what_its_labels_say(studio: Host, run: Callable[[str], Run]) -> None:
    made = run("guidance_sweep")
    found = grid(studio, "Guidance scales")
    check_pictures(found.unique)
    assert [origin["label"] for origin in found.unique_origins] == [f"cfg {cfg}" for cfg in (1, 3, 5, 7.5, 11, 15)]
    graph = copy.deepcopy(made.graph)
    graph[node_of(graph, "KSampler")]["inputs"]["cfg"] = 11.0
    single = {number: node for number, node in graph.items() if node["class_type"] not in (
        "AtelierCLIPScore", "AtelierBlockGrid", "AtelierSaveTitled")}
    single["save"] = {"class_type": "SaveImage", "inputs": {"images": [node_of(graph, "VAEDecode"), 0],
                                                            "filename_prefix": "single"}}
    result = studio.queue(single)
    assert result.status == "success", result.error
    # The host's node truncates to 8 bits, the pack rounds.
    assert np.abs(result.pictures("save")[0].astype(int) - found.unique[4]).max() <= 1


def test_the_search_finds_what_it_looks_for() -> None:
    key = KEYS["OPENAI_API_KEY"]
    packed = [base64.b64encode(f"{before} {key}".encode()).decode() for before in ("Bearer", "key", "x")]
    for text in (key, key[5:20], f"x {key[-8:]}", *packed):
        assert traces(text.encode()) == ["OPENAI_API_KEY"], text
    assert traces(key[:7].encode()) == [] and traces(json.dumps({"credential": "OPENAI_API_KEY"}).encode()) == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_run_shows_no_key(studio: Host, run: Callable[[str], Run], name: str) -> None:
    made = run(name)
    assert traces(json.dumps(made.graph).encode()) == []
    assert traces(repr((made.result.error, made.result.events, made.result.outputs)).encode()) == []


def test_keys_leave_no_trace(studio: Host, run: Callable[[str], Run], fake: FakeLlm) -> None:
    """After every workflow, and after two whose language model throws the keys back: one fails, one goes on offline."""
    for name in WORKFLOWS:
        run(name)
    sent = {request.headers["authorization"] for request in fake.requests}
    assert sent == {f"Bearer {key}" for key in KEYS.values()}, "the keys were in use"
    results = []
    for name, kind, key in (("prompts_by_a_language_model", "AtelierWritePrompt", "OPENAI_API_KEY"),
                            ("grid_of_generated_pictures", "AtelierRandomArtPrompts", "GOOGLE_API_KEY")):
        for _ in range(2):
            fake.say(status=401, error={"error": {"message": f"Incorrect API key provided: {KEYS[key]}"}})
        graph = {number: copy.deepcopy(node) for number, node in run(name).graph.items()
                 if node["class_type"] in ("AtelierLLM", "CheckpointLoaderSimple", kind)}
        graph[node_of(graph, kind)]["inputs"]["seed"] = 99
        results.append(studio.queue(graph))
        fake.turns.clear()
    assert [result.status for result in results] == ["error", "success"]
    assert "Incorrect API key provided" in results[0].error and "offline" in repr(results[1].outputs)
    assert traces(repr([(result.error, result.events, result.outputs) for result in results]).encode()) == []
    files = [file.relative_to(studio.base).as_posix() for file in studio.base.rglob("*") if file.is_file()]
    for kind in ("output", "temp", "models/loras", "models/diffusers", *(
            f"user/atelier/{name}" for name in ("answers", "cache", "hub", "made", "runs"))):
        assert any(file.startswith(f"{kind}/") for file in files), f"nothing in {kind} to be searched"
    assert leaks(studio) == {}
