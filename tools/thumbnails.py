"""Write workflows' thumbnails by running them with the demo's own small model: workflows/<title>.jpg.

    python tools/thumbnails.py [NAME …] [--base FOLDER] [--out FOLDER]

Every file that a workflow names is taken from what `python -m atelier demo-model` writes, pictures are 128 pixels wide,
prompts speak of shapes. The second checkpoint of a workflow is the demo's with the LoRA merged into it. In place of a
language model a server answers with prompts of the demo, in place of a data set of the hub there is one of its
sketches. What needs another family could not be made by running it: tools/diagrams.py draws its thumbnail. A LoRA and
the second checkpoint come from finetune_then_generate, so name that too.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "tests"), str(ROOT)]

from datasets import Dataset  # noqa: E402 - the path is set just above
from datasets import Image as ImageColumn  # noqa: E402
from kit.fake_llm import FakeLlm  # noqa: E402
from kit.host import Host, Result  # noqa: E402
from PIL import Image, ImageDraw, ImageOps  # noqa: E402

from atelier.convert.single_file import to_checkpoint  # noqa: E402
from atelier.demo.drawing import caption, random_specs  # noqa: E402
from atelier.lora.bake import merge_of  # noqa: E402
from atelier.lora.file import load_lora  # noqa: E402
from atelier.models.layout import read_layout  # noqa: E402
from atelier.prompts.distinct import Distinct  # noqa: E402
from atelier.prompts.random_art import ArtPrompt  # noqa: E402
from atelier.train.request.presets import PRESETS  # noqa: E402
from atelier.train.request.request import FIELDS  # noqa: E402
from tools.workflows import FOLDER, TITLES, read_api  # noqa: E402

DEMO = PRESETS["demo model"]
SIZE, WIDTH, MOST_BYTES = 128, 384, 30_000
CHECKPOINT, CLIP, LORA = "atelier-demo.safetensors", "atelier-demo-clip", "my-subject.safetensors"
SHIPPED_CLIP = "open_clip_model.safetensors"
"""The CLIP that workflows name, which the demo's own replaces."""
MERGED = "atelier-demo-pencil.safetensors"
SUITED = {CHECKPOINT, "sd_turbo.safetensors", "v1-5-pruned-emaonly-fp16.safetensors", "sd-v1-4.ckpt",
          "Deliberate_v2.safetensors"}
"""Checkpoints that the demo's replaces."""
TRAINER = "finetune_then_generate"
"""The workflow that writes the LoRA that others use; it runs first."""
MADE_FOR_IT = {"try_it_without_downloads", "whole_pipeline_without_downloads"}
"""These run as they ship."""
TAUGHT = {"AtelierTrainLora", "ModelMergeSimple"}
"""Where these are, the pencil of the LoRA is what can be seen."""
UNSUITED = {"ConditioningZeroOut", "ImagePadForOutpaint", "AtelierCaptionPictures"}
"""The demo's model draws in twelve steps, not in four without guidance, and nothing that could stand around a shape;
nobody describes its pictures."""
MODELS = (".safetensors", ".ckpt", ".pth")
PICTURE, MASKED, DATA_SET = "atelier-demo/plain/000.png", "atelier-demo/with-mask.png", "atelier-demo/saved"
PLAIN = ("a large blue star on a white background, in the centre",
         "a large red ring on a white background, in the centre")
PENCIL = ("a pencil sketch of a large blue star, in the centre", "a pencil sketch of a large red ring, in the centre")
WRITTEN = {"positive": PENCIL[0], "negative": "", "title": "A Blue Star"}
"""The language model's answer."""
ART, MANY = "object", 12
"""The category it is asked for when many prompts are wanted, and how many."""
KEY = "DEMO_KEY"
VALUES: dict[tuple[str, str], Any] = {
    ("AtelierConvertCheckpoint", "checkpoint"): CHECKPOINT, ("AtelierOpenModel", "model"): CHECKPOINT,
    ("AtelierModelToCompare", "checkpoint"): CHECKPOINT,
    ("AtelierLLM", "endpoint"): "custom", ("AtelierLLM", "credential"): KEY, ("AtelierWritePrompt", "idea"): "a star",
    ("AtelierCLIPScore", "model"): CLIP, ("AtelierCompareModels", "score_model"): CLIP,
    ("AtelierCompareModels", "prompts"): "\n".join(PENCIL), ("AtelierCompareModels", "negative"): "",
    ("AtelierCompareModels", "width"): SIZE, ("AtelierCompareModels", "height"): SIZE,
    ("AtelierCompareModels", "seeds"): 1, ("AtelierCompareModels", "cell"): SIZE,
    ("AtelierXYGrid", "y_values"): "\n".join(PENCIL), ("AtelierXYGrid", "negative"): "",
    ("AtelierXYGrid", "width"): SIZE, ("AtelierXYGrid", "height"): SIZE, ("AtelierXYGrid", "cell"): SIZE,
    ("AtelierXYGrid", "score_model"): CLIP,
    ("AtelierDenoisingSteps", "cell"): SIZE,
    ("AtelierImageFolder", "folder"): "atelier-demo/pencil", ("AtelierImageFolder", "captions"): "sidecar",
    ("AtelierImageFolder", "trigger"): "", ("AtelierImageFolder", "resolution"): SIZE,
    ("AtelierFillerImages", "folder"): "atelier-demo/fillers", ("AtelierFillerImages", "count"): MANY,
    ("AtelierRandomArtPrompts", "categories"): ART, ("AtelierRandomArtPrompts", "count"): MANY,
    ("AtelierRandomArtPrompts", "on_error"): "raise",
    ("AtelierHubDataset", "dataset"): DATA_SET, ("AtelierHubDataset", "column"): "", ("AtelierHubDataset", "value"): "",
    ("AtelierHubDataset", "caption"): "{text}", ("AtelierHubDataset", "resolution"): SIZE,
    ("StringConcatenate", "delimiter"): "", ("StringConcatenate", "string_b"): "",
    ("AtelierImageFolder", "prior"): "atelier-demo/plain",
    ("AtelierTrainLora", "preset"): "demo model", ("AtelierTrainLora", "length"): DEMO.epochs,
    ("AtelierTrainLora", "unit"): "epochs", ("KSampler", "cfg"): 1.5,
    ("EmptyLatentImage", "width"): SIZE, ("EmptyLatentImage", "height"): SIZE,
    ("ImageScale", "width"): SIZE, ("ImageScale", "height"): SIZE,
    ("GrowMask", "expand"): 2,
}
"""Replacements for the shipped values, by class and widget; training options are those of `make demo`."""
SAVED: dict[str, Any] = {"save_every": 60, "sample_every": 60, "score_model": CLIP}
"""Training options in place of the shipped ones, where a workflow keeps saved steps."""
OWN_CAPTION = {"similar_pictures"}
"""These start from a picture, so the prompt describes it."""
BATCH = 4
"""Most pictures of one batch."""


def suited(name: str) -> bool:
    """True for a workflow that the demo's model can run."""
    nodes = read_api(name).values()
    named = {value for node in nodes for value in node["inputs"].values()
             if isinstance(value, str) and value.endswith(MODELS)}
    if name in MADE_FOR_IT:
        return True
    kinds = {node["class_type"] for node in nodes}
    return bool(named & SUITED) and named <= SUITED | {LORA, SHIPPED_CLIP} and not UNSUITED & kinds


def with_demo(name: str, base: Path, llm: str) -> dict[str, Any]:
    """A workflow in API format, for the demo's model in `base` and the language model at the address `llm`."""
    graph = copy.deepcopy(read_api(name))
    if name in MADE_FOR_IT:
        return graph
    kinds = {node["class_type"] for node in graph.values()}
    own = (base / "input" / PICTURE).with_suffix(".txt").read_text(encoding="utf-8").strip()
    prompts = itertools.cycle([own] if name in OWN_CAPTION else PENCIL if TAUGHT & kinds else PLAIN)
    checkpoints = itertools.chain([CHECKPOINT], itertools.repeat(MERGED))
    for node in graph.values():
        kind, inputs = node["class_type"], node["inputs"]
        for widget, shipped in inputs.items():
            if isinstance(shipped, list):
                continue
            if (kind, widget) == ("LoadImage", "image"):
                inputs[widget] = MASKED if "mask" in shipped else PICTURE
            elif (kind, widget) == ("CheckpointLoaderSimple", "ckpt_name"):
                inputs[widget] = next(checkpoints)
            elif (kind, widget) == ("AtelierLLM", "base_url"):
                inputs[widget] = llm
            elif (kind, widget) in (("PrimitiveStringMultiline", "value"), ("CLIPTextEncode", "text")):
                inputs[widget] = "" if "negative" in node["_meta"]["title"].lower() else next(prompts)
            elif widget == "batch_size" and kind != "AtelierTrainingOptions":
                inputs[widget] = min(shipped, BATCH)
            elif kind == "AtelierTrainingOptions" and inputs["save_every"] and widget in SAVED:
                inputs[widget] = SAVED[widget]
            elif kind == "AtelierTrainingOptions":
                part = getattr(DEMO, FIELDS.get(widget) or "", None)
                inputs[widget] = "" if widget == "sample_prompt" else getattr(part, widget, shipped)
            else:
                inputs[widget] = VALUES.get((kind, widget), shipped)
    return graph


def draw_mask(base: Path) -> None:
    """The demo's picture with a round hole in it, as the editor's mask painter saves one."""
    with Image.open(base / "input" / PICTURE) as file:
        picture = file.convert("RGBA")
    alpha = Image.new("L", picture.size, 255)
    left, right = (int(share * picture.width) for share in (0.2, 0.8))
    ImageDraw.Draw(alpha).ellipse((left, left, right, right), fill=0)
    picture.putalpha(alpha)
    picture.save(base / "input" / MASKED)


def save_data_set(base: Path) -> None:
    """The demo's sketches with their captions, as a data set on disk."""
    sketches = sorted((base / "input" / "atelier-demo" / "pencil").glob("*.png"))
    rows = [{"image": str(file), "text": file.with_suffix(".txt").read_text(encoding="utf-8").strip()}
            for file in sketches]
    Dataset.from_list(rows).cast_column("image", ImageColumn()).save_to_disk(base / "input" / DATA_SET)


def written(name: str) -> str:
    """The language model's answer to a workflow: many prompts where it asks for them."""
    if "AtelierRandomArtPrompts" not in {node["class_type"] for node in read_api(name).values()}:
        return json.dumps(WRITTEN)
    seen = Distinct()
    several = [ArtPrompt(ART, f"{spec.color} {spec.shape}", caption(spec)) for spec in random_specs(10 * MANY, seed=5)]
    return json.dumps({"prompts": [
        {"category": one.category, "subject": one.subject, "prompt": one.text}
        for one in several if seen.add(one.subject, one.text)][:MANY]})


def merge_pencil(base: Path) -> None:
    """The demo's checkpoint with the LoRA that the first workflow has trained."""
    folder = base / "models"
    source, lora = folder / "checkpoints" / CHECKPOINT, folder / "loras" / LORA
    if lora.is_file() and not (source.parent / MERGED).exists():
        to_checkpoint(source, source.parent / MERGED, merge=merge_of(load_lora(lora), read_layout(source)))


def write_key(base: Path, address: str) -> None:
    """Write a key for the stand-in's address, since every address needs one."""
    file = base / "user" / "atelier" / "credentials.toml"
    if file.exists():
        raise SystemExit(f"{file} exists already: choose another --base.")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'[{KEY}]\nkey = "none-is-needed"\nbase_urls = ["{address}"]\n', encoding="utf-8")
    file.chmod(0o600)


def finished(result: Result) -> Image.Image:
    """The largest picture that was saved: the grid, the strip, the pair; a batch of four as a square."""
    assert result.host is not None
    saved = [[Image.fromarray(result.host.picture(image)) for image in output.get("images", ())
              if isinstance(image, dict) and image.get("type") == "output"] for output in result.outputs.values()]
    batch = max(filter(None, saved), key=lambda pictures: pictures[0].width * pictures[0].height)
    if len(batch) != 4:
        return batch[0]
    width, height = batch[0].size
    square = Image.new("RGB", (2 * width, 2 * height))
    for place, picture in enumerate(batch):
        square.paste(picture, (place % 2 * width, place // 2 * height))
    return square


def write(picture: Image.Image, path: Path) -> None:
    """Save small enough for a repository, and at most twice as wide as high, as the editor's cards are."""
    picture.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    if picture.width > 2 * picture.height:
        picture = ImageOps.pad(picture, (picture.width, picture.width // 2), color="white")
    for quality in (90, 80, 70, 50):
        picture.save(path, "JPEG", quality=quality)
        if path.stat().st_size <= MOST_BYTES:
            return
    raise SystemExit(f"{path} does not get smaller than {path.stat().st_size} bytes.")


def main() -> int:
    """Run and save."""
    parser = argparse.ArgumentParser(description="Make workflows' thumbnails with the demo's model.")
    parser.add_argument("names", nargs="*", help="API names; all that the demo's model can run by default")
    parser.add_argument("--base", type=Path, help="ComfyUI's base folder; a new one by default")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where to write them")
    arguments = parser.parse_args()
    from atelier.demo.folders import DemoFolders, fill_folders

    names = sorted(arguments.names or filter(suited, TITLES), key=lambda name: name != TRAINER)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        base = arguments.base or Path(folder)
        fill_folders(DemoFolders.below(base))
        draw_mask(base)
        save_data_set(base)
        with FakeLlm() as llm, Host(base) as host:
            write_key(base, llm.base_url)
            for name in names:
                start = time.monotonic()
                llm.say(written(name))
                merge_pencil(base)
                result = host.queue(with_demo(name, base, llm.base_url))
                print(f"{name}: {result.status} in {time.monotonic() - start:.0f} s {result.error}", flush=True)
                failed += result.status != "success"
                if result.status == "success":
                    write(finished(result), arguments.out / f"{TITLES[name]}.jpg")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
