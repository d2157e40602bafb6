"""The workflows for learning and comparing, in the real host with small models, judged by pixels."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kit.checkpoints import write_sd1
from kit.clip_models import clip_config, picture_cosines, random_clip, save_clip
from kit.fake_vision import FakeVision, description, write_numbered
from kit.host import Host, Result
from kit.pictures import noise_picture, put
from kit.shapes import draw_shapes
from kit.small_workflows import node_of, write_lora
from PIL import Image
from safetensors import safe_open

from atelier.explain.token_picture import color_of
from tools.workflows import read_api

pytestmark = [pytest.mark.host, pytest.mark.slow]

SIZE = 64
SMALL: dict[str, dict[str, Any]] = {
    "EmptyLatentImage": {"width": SIZE, "height": SIZE}, "ImageScale": {"width": SIZE, "height": SIZE},
    "KSampler": {"steps": 2}, "KSamplerAdvanced": {"steps": 4}, "BasicScheduler": {"steps": 3},
    "AtelierModelToCompare": {"steps": 2, "cfg": 5.0, "sampler": "euler", "scheduler": "normal"},
    "AtelierCompareModels": {"width": SIZE, "height": SIZE, "seeds": 1},
    "AtelierXYGrid": {"width": SIZE, "height": SIZE, "y_values": "a photo of ohwx\na photo of a cat"},
    "AtelierImageFolder": {"resolution": SIZE}, "AtelierCaptionPictures": {"resolution": SIZE},
    "AtelierTrainingOptions": {"sample_steps": 1, "sample_prompt": "a photo of ohwx", "save_every": 6,
                               "sample_every": 6},
    "AtelierTrainLora": {"length": 8, "unit": "epochs", "sample_prompt": "none"},
    "ImagePadForOutpaint": {"left": 32, "right": 32, "feathering": 8},
}
"""Smaller values for widgets that are not linked, by node class."""


@pytest.fixture(scope="module")
def studio(host: Host, put_checkpoint: Callable[..., str]) -> Host:
    """The shared host, with the files that these workflows name."""
    put_checkpoint(host, "v1-5-pruned-emaonly-fp16.safetensors")
    models, pictures = host.base / "models", host.base / "input"
    if not (models / "checkpoints" / "sd-v1-4.ckpt").exists():
        write_sd1(models / "checkpoints" / "sd-v1-4.ckpt", seed=1)
    write_lora(models / "loras" / "my-subject.safetensors")
    if not (models / "clip_score" / "open_clip_model.safetensors" / "config.json").exists():
        save_clip(models / "clip_score" / "open_clip_model.safetensors", random_clip(clip_config()))
    source().save(pictures / "example.png")
    masked = source().convert("RGBA")
    masked.putalpha(Image.fromarray(255 - hole().astype(np.uint8) * 255))
    masked.save(pictures / "with-mask.png")
    return host


def source() -> Image.Image:
    return noise_picture(SIZE, SIZE, 3)


def hole() -> np.ndarray:
    """The pixels that the mask leaves open."""
    inside = np.zeros((SIZE, SIZE), bool)
    inside[24:40, 24:40] = True
    return inside


@pytest.fixture(scope="module")
def graph(studio: Host) -> Callable[[str], dict[str, Any]]:
    def small(name: str) -> dict[str, Any]:
        made = copy.deepcopy(read_api(name))
        for node in made.values():
            node["inputs"] |= {widget: value for widget, value in SMALL.get(node["class_type"], {}).items()
                               if not isinstance(node["inputs"][widget], list)}
        return made
    return small


def run_graph(host: Host, made: dict[str, Any]) -> Result:
    result = host.queue(made)
    assert result.status == "success", result.error
    return result


def picture(result: Result, node: str) -> np.ndarray:
    """The only picture of a node, as numbers that can be subtracted."""
    found, = result.pictures(node)
    return found.astype(int)


def shown(host: Host, made: dict[str, Any], *outputs: list[Any]) -> list[np.ndarray]:
    """Pictures of some IMAGE outputs of a graph, without the nodes that score and save."""
    without = ("AtelierCLIPScore", "AtelierBlockGrid", "AtelierSaveTitled", "SaveImage", "PreviewAny")
    bare = {number: node for number, node in made.items() if node["class_type"] not in without}
    bare |= {f"show{i}": {"class_type": "PreviewImage", "inputs": {"images": output}}
             for i, output in enumerate(outputs)}
    result = run_graph(host, bare)
    return [found.astype(int) for i in range(len(outputs)) for found in result.pictures(f"show{i}")]


def cells(host: Host, title: str) -> tuple[list[np.ndarray], list[str]]:
    """The pictures of a grid saved under a title, and their labels."""
    folder = host.base / "output" / "atelier"
    about = json.loads((folder / f"{title}.json").read_text(encoding="utf-8"))
    with Image.open(folder / f"{title}.png") as file:
        grid = np.asarray(file.convert("RGB")).astype(int)
    made = sorted(about["grid"]["cells"], key=lambda cell: cell["picture"])
    boxes = [cell["box"] for cell in made]
    return ([grid[b["y"]:b["y"] + b["height"], b["x"]:b["x"] + b["width"]] for b in boxes],
            [cell["origin"].get("label", "") for cell in made])


def check_varied(pictures: list[np.ndarray]) -> None:
    """Check that none is uniform and no two are the same."""
    for one in pictures:
        assert one.std() > 5, "an even picture: NaN, or nothing denoised"
    for i, one in enumerate(pictures):
        assert all(np.abs(one - other).mean() > 0.5 for other in pictures[:i])


def test_inpainting_touches_the_mask_alone(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    made = graph("inpainting")
    result = picture(run_graph(studio, made), node_of(made, "SaveImage"))
    before = np.asarray(source().convert("RGB")).astype(int)
    far = np.ones((SIZE, SIZE), bool)
    far[14:50, 14:50] = False  # the mask grows by 8 pixels and the host's resizing softens its edge
    assert np.abs(result - before)[far].max() <= 1
    assert np.abs(result - before)[hole()].mean() > 10


def test_outpainting_keeps_the_picture_in_the_middle(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    made = graph("outpainting")
    result = picture(run_graph(studio, made), node_of(made, "SaveImage"))
    assert result.shape == (SIZE, SIZE + 64, 3)
    before = np.asarray(source().convert("RGB")).astype(int)
    assert np.abs(result[:, 32 + 9:32 + SIZE - 9] - before[:, 9:-9]).max() <= 1
    assert result[:, :30].std() > 5 and result[:, -30:].std() > 5


def test_lms_and_ddim(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    made = graph("samplers_compared")
    for node in made.values():
        if node["class_type"] == "PrimitiveInt" and node["_meta"]["title"].endswith(" steps"):
            node["inputs"]["value"] //= 5  # 2, 4 and 8
    run_graph(studio, made)
    pictures, labels = cells(studio, "LMS and DDIM")
    check_varied(pictures)
    assert labels == [f"{name}, {steps} steps" for steps in (10, 20, 40) for name in ("LMS", "DDIM")]
    alone = copy.deepcopy(made)
    alone[node_of(alone, "KSampler", "LMS")]["inputs"]["steps"] = 8
    last, = shown(studio, {number: node for number, node in alone.items() if "DDIM" not in node["_meta"]["title"] and
                           node["class_type"] != "BatchImagesNode"},
                  [node_of(alone, "VAEDecode", "LMS pictures"), 0])
    assert np.abs(last - pictures[4]).max() <= 1


def test_mixtures_begin_and_end_with_the_models(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    made = graph("merge_sweep")
    run_graph(studio, made)
    pictures, labels = cells(studio, "Mixtures of two models")
    check_varied(pictures)
    assert labels == ["A 0", "A 0.25", "A 0.5", "A 0.75", "A 1"]
    for place, loader in ((0, node_of(made, "CheckpointLoaderSimple", "Model B")),
                          (4, node_of(made, "CheckpointLoaderSimple", "Model A"))):
        alone = copy.deepcopy(made)
        sampler = alone[node_of(alone, "KSampler")]["inputs"]
        sampler["model"] = [loader, 0]
        for side in ("positive", "negative"):
            alone[sampler[side][0]]["inputs"]["clip"] = [loader, 1]
        expected, = shown(studio, alone, [node_of(alone, "VAEDecode"), 0])
        assert np.abs(expected - pictures[place]).max() <= 1


def test_a_lora_at_four_strengths(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    made = graph("lora_at_four_strengths")
    compare = node_of(made, "AtelierCompareModels")
    made[compare]["inputs"]["prompts"] = "a photo of ohwx"
    made["all"] = {"class_type": "PreviewImage", "inputs": {"images": [compare, 4]}}
    result = run_graph(studio, made)
    none, *stronger = (found.astype(int) for found in result.pictures("all"))
    changes = [np.abs(found - none).mean() for found in stronger]
    assert 0.5 < changes[0] < changes[1] < changes[2]
    table = result.text(node_of(made, "PreviewAny", "Table"))
    assert all(label in table for label in ("without", "strength 0.4", "strength 0.7", "strength 1"))
    assert picture(result, node_of(made, "SaveImage", "Save the grid")).shape[1] == 170 + 4 * (SIZE + 6)


def test_a_lora_is_trained_and_compared_in_one_graph(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    draw_shapes(studio.base / "input" / "my-pictures", size=SIZE)
    made = graph("finetune_then_compare_strengths")
    compare = node_of(made, "AtelierCompareModels")
    made[compare]["inputs"]["prompts"] = "a photo of ohwx"
    made["all"] = {"class_type": "PreviewImage", "inputs": {"images": [compare, 4]}}
    made["name"] = {"class_type": "PreviewAny", "inputs": {"source": [node_of(made, "AtelierTrainLora"), 1]}}
    result = run_graph(studio, made)
    none, *stronger = (found.astype(int) for found in result.pictures("all"))
    changes = [np.abs(found - none).mean() for found in stronger]
    assert 0 < changes[0] < changes[1] < changes[2]
    # It is the LoRA just trained, not an older file of that name.
    trained = result.text("name")
    assert trained != "my-subject.safetensors"
    made[node_of(made, "AtelierModelToCompare", "Strength 1")]["inputs"] |= {"lora": trained, "lora_name": ""}
    assert np.array_equal(run_graph(studio, made).pictures("all")[3], stronger[2])


def test_every_saved_step_is_drawn_and_scored(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    draw_shapes(studio.base / "input" / "my-pictures", size=SIZE)
    made = graph("which_step_of_my_training_is_best")
    train, grid = node_of(made, "AtelierTrainLora"), node_of(made, "AtelierXYGrid")
    made[train]["inputs"] |= {"length": 16, "unit": "steps", "sample_prompt": ""}
    made["all"] = {"class_type": "PreviewImage", "inputs": {"images": [grid, 3]}}
    made["names"] = {"class_type": "PreviewAny", "inputs": {"source": [train, 5]}, "_meta": {"title": "names"}}
    made[node_of(made, "AtelierTrainingOptions")]["inputs"]["learning_rate"] = 0.02
    result = run_graph(studio, made)
    names = result.text("names").split("\n")
    assert len(names) == 3 and [name.rsplit("-", 1)[1] for name in names[:2]] == ["000006.safetensors",
                                                                                  "000012.safetensors"]
    pictures = result.pictures("all")
    assert len(pictures) == 6 and len({found.tobytes() for found in pictures}) == 6, "each step, each prompt its own"
    assert min(found.std() for found in pictures) > 5
    head, *rows = result.text(node_of(made, "PreviewAny", "Table")).splitlines()
    assert head.split()[-4:] == [name.removesuffix(".safetensors") for name in names] + ["mean"]
    assert any(row.startswith("best lora on average: my-subject") for row in rows), rows
    assert "(base model" in result.text(node_of(made, "PreviewAny", "Report of the training"))


def test_pictures_are_described_learnt_and_compared(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    """The captions that the server gives are those that the LoRA was trained with."""
    shutil.rmtree(studio.base / "input" / "my-pictures", ignore_errors=True)
    write_numbered(studio.base / "input" / "my-pictures", 4, size=(SIZE, SIZE))
    made = graph("caption_train_compare")
    compare, train = node_of(made, "AtelierCompareModels"), node_of(made, "AtelierTrainLora")
    made[compare]["inputs"]["prompts"] = "a photo of ohwx"
    made["all"] = {"class_type": "PreviewImage", "inputs": {"images": [compare, 4]}}
    made["name"] = {"class_type": "PreviewAny", "inputs": {"source": [train, 1]}, "_meta": {"title": "name"}}
    with FakeVision() as fake:
        llm = {"endpoint": "custom", "base_url": fake.base_url, "model": "fake"}
        made[node_of(made, "AtelierLLM")]["inputs"] |= llm
        result = run_graph(studio, made)
        assert sorted(fake.seen()) == [0, 1, 2, 3]
    without, with_lora = (found.astype(int) for found in result.pictures("all"))
    assert np.abs(with_lora - without).mean() > 0
    with safe_open(studio.base / "models" / "loras" / result.text("name"), framework="pt") as file:
        tags = json.loads(file.metadata()["ss_tag_frequency"])["training set"]
    assert tags == {"ohwx": 4, **{description(number): 1 for number in range(4)}}
    assert "without" in result.text(node_of(made, "PreviewAny", "Table"))


def test_a_prepared_set_is_trained_and_exported(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    """Two folders, a picture that is in both left out, and prior pictures that are drawn once."""
    close, other = (studio.base / "input" / name for name in ("my-close-photos", "my-other-photos"))
    for seed in range(5):
        put((close if seed < 3 else other) / f"{seed}.png", seed, (SIZE, SIZE))
    shutil.copy(close / "0.png", other / "again.png")
    made = graph("prepare_a_training_set")
    check, prior = node_of(made, "AtelierCheckTrainingSet"), node_of(made, "AtelierPriorPictures")
    train = node_of(made, "AtelierTrainLora")
    made[check]["inputs"] |= {"drop_duplicates": True, "drop_blurred": False}
    made[prior]["inputs"] |= {"count": 4, "steps": 1}
    made[train]["inputs"]["length"] = 1
    made["name"] = {"class_type": "PreviewAny", "inputs": {"source": [train, 1]}, "_meta": {"title": "name"}}
    result = run_graph(studio, made)
    assert "duplicate" in result.text(node_of(made, "PreviewAny", "Faults"))
    with safe_open(studio.base / "models" / "loras" / result.text("name"), framework="pt") as file:
        header = file.metadata()
    assert header["ss_num_train_images"] in ("11", "9"), "one of the two equal pictures, used three times or once"
    assert header["ss_num_reg_images"] == "4"
    exported = studio.base / "output" / "training" / "my-dog"
    kept = json.loads((exported / "training_set.json").read_text(encoding="utf-8"))["samples"]
    assert [row["captions"] for row in kept if row["prior"]] == [["a photo of a dog"]] * 4
    drawn = studio.base / "user" / "atelier" / "prior"
    before = {path.name: path.stat().st_mtime_ns for path in drawn.iterdir()}
    made[prior]["inputs"]["count"] = 5
    run_graph(studio, made)
    after = {path.name: path.stat().st_mtime_ns for path in drawn.iterdir()}
    assert len(after) == 5 and before.items() <= after.items()
    studio.free()  # models and sets that no later test asks for


def test_loras_are_taken_out_resized_and_merged(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    write_lora(studio.base / "models" / "loras" / "my-style.safetensors")
    made = graph("lora_tools")
    result = run_graph(studio, made)
    for tool in ("Extract LoRA", "Resize LoRA", "Merge LoRAs"):
        assert "layers" in result.text(node_of(made, "PreviewAny", f"Report of {tool}"))
    written = studio.base / "models" / "loras"
    assert {"my-extracted-lora.safetensors", "my-lora-small.safetensors", "my-loras.safetensors"} <= {
        path.name for path in written.iterdir()}
    studio.free()


def test_similar_pictures_are_alike_and_not_the_same(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    made = graph("similar_pictures")
    result = run_graph(studio, made)
    grid = picture(result, node_of(made, "SaveImage"))
    assert grid.shape[1] == 15 + 3 * SIZE + 2 * 10 + 15
    pictures = shown(studio, made, [node_of(made, "VAEDecode"), 0])
    check_varied(pictures)
    head, *rows = result.text(node_of(made, "PreviewAny")).splitlines()
    place = head.split().index("likeness")
    found = [float(row.split()[place]) for row in rows[:6]]
    assert rows[6].endswith("n 6")
    model = studio.base / "models" / "clip_score" / "open_clip_model.safetensors"
    expected = picture_cosines(model, [Image.fromarray(each.astype(np.uint8)) for each in pictures], source())
    assert found == pytest.approx(expected, abs=2e-3)  # the host truncates to 8 bits, the pack rounds
    assert max(expected) - min(expected) > 0.01, "too alike to tell"


def test_chapter_1_shows_tokens(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    made = graph("tokens_explained")
    result = run_graph(studio, made)
    table = result.text(node_of(made, "PreviewAny", "Tokens in a table"))
    assert "clip_l: 12 tokens, 75 fit" in table and "majestic" in table and "1.3" in table
    assert "one rare token" in result.text(node_of(made, "PreviewAny", "Verdict"))
    boxes = picture(result, node_of(made, "SaveImage"))
    assert (np.abs(boxes - color_of(1.3)).max(axis=-1) <= 1).sum() > 500, "no orange for the weight of 1.3"


def test_chapter_2_goes_from_one_text_to_the_other(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    made = graph("embeddings_explained")
    run_graph(studio, made)
    pictures, labels = cells(studio, "Embeddings explained")
    check_varied(pictures)
    assert labels[0] == "0 of the first" and labels[-1] == "1 of the first"
    alone = copy.deepcopy(made)
    for place, title in ((0, "Second prompt, encoded"), (4, "Prompt, encoded")):
        alone[node_of(alone, "KSampler")]["inputs"]["positive"] = [node_of(alone, "CLIPTextEncode", title), 0]
        expected, = shown(studio, alone, [node_of(alone, "VAEDecode"), 0])
        assert np.abs(expected - pictures[place]).max() <= 1


def test_chapter_3_shows_the_noise_of_each_seed(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    made = graph("noise_explained")
    run_graph(studio, made)
    pictures = shown(studio, made, [node_of(made, "VAEDecode", "The noise"), 0],
                     [node_of(made, "VAEDecode", "Pictures"), 0])
    assert len(pictures) == 8
    check_varied(pictures)


def test_chapter_4_ends_with_the_samplers_own_picture(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    made = graph("denoising_explained")
    result = run_graph(studio, made)
    *_, last = result.pictures(node_of(made, "PreviewImage"))
    assert result.outputs[node_of(made, "AtelierDenoisingSteps")]["images"][1]["filename"].endswith(".webp")
    # One core node does everything that the chapter takes apart.
    core = {number: node for number, node in made.items() if node["class_type"] in (
        "CheckpointLoaderSimple", "PrimitiveStringMultiline", "PrimitiveInt", "CLIPTextEncode", "EmptyLatentImage")}
    loader = node_of(made, "CheckpointLoaderSimple")
    core["k"] = {"class_type": "KSampler", "_meta": {"title": "k"}, "inputs": {
        "model": [loader, 0], "seed": [node_of(made, "PrimitiveInt"), 0], "steps": 3, "cfg": 7.0,
        "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
        "positive": [node_of(made, "CLIPTextEncode", "Prompt, encoded"), 0],
        "negative": [node_of(made, "CLIPTextEncode", "Negative prompt, encoded"), 0],
        "latent_image": [node_of(made, "EmptyLatentImage"), 0]}}
    core["d"] = {"class_type": "VAEDecode", "_meta": {"title": "d"},
                 "inputs": {"samples": ["k", 0], "vae": [loader, 2]}}
    expected, = shown(studio, core, ["d", 0])
    assert np.abs(last.astype(int) - expected).max() <= 1
    assert picture(result, node_of(made, "SaveImage")).shape[0] == 44 + 3 * (SIZE + 6) + 6


def test_chapter_5_pulls_harder_at_higher_scales(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    made = graph("guidance_explained")
    result = run_graph(studio, made)
    strips = [picture(result, node_of(made, "SaveImage", f"Save cfg {cfg}")) for cfg in (1, 7, 20)]
    finals = [strip[44:44 + SIZE, -SIZE - 6:-6] for strip in strips]
    check_varied(finals)
    assert np.abs(finals[2] - finals[0]).mean() > np.abs(finals[1] - finals[0]).mean()


def test_chapter_6_shows_what_the_vae_loses(studio: Host, graph: Callable[[str], dict[str, Any]]) -> None:
    made = graph("vae_explained")
    run_graph(studio, made)
    before, after, lost = shown(studio, made, [node_of(made, "BatchImagesNode"), 0])
    assert np.abs(before - np.asarray(source().convert("RGB"))).max() <= 1
    assert after.std() > 5
    assert np.abs(lost - np.abs(before - after)).max() <= 2
