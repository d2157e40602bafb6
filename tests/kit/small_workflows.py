"""The workflows that ship, for small random models and little time: the same graphs, with other values in widgets.

What a workflow asks for is put where it looks for it, under the names that ship, so that most widgets stay as they are.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from kit.checkpoints import write_sd1, write_sd2
from kit.clip_models import clip_config, random_clip, save_clip
from kit.fake_llm import FakeLlm
from kit.host import Host
from kit.pictures import noise_picture
from kit.shapes import draw_shapes
from PIL import Image
from safetensors.torch import save_file

from tools.workflows import read_api

SIZE = 64
STYLES = ["Abstract_Expressionism", "Impressionism"]
KEYS = {"OpenAI": "OPENAI_API_KEY", "Gemini": "GOOGLE_API_KEY"}
"""The credential that each endpoint asks for."""

Change = Callable[[Any], Any]


def _to(value: Any) -> Change:
    return lambda shipped: value


def _at_most(most: int) -> Change:
    return lambda shipped: min(shipped, most)


CHANGES: dict[str, dict[str, Change]] = {
    "EmptyLatentImage": {"width": _to(SIZE), "height": _to(SIZE), "batch_size": _at_most(4)},
    "RebatchLatents": {"batch_size": _at_most(3)},
    "ImageScale": {"width": _to(SIZE), "height": _to(SIZE)},
    "KSampler": {"steps": lambda shipped: {10: 1, 40: 4}.get(shipped, 2)},
    "AtelierImageFolder": {"resolution": _to(SIZE)},
    "AtelierHubDataset": {"dataset": _to("wikiart"), "limit": _to(2), "resolution": _to(SIZE)},
    "AtelierTrainingOptions": {"sample_steps": _to(1), "sample_every": _to(100)},
    "AtelierTrainLora": {"length": _to(1), "unit": _to("epochs"), "sample_prompt": _to("none")},
    "AtelierCaptionPictures": {"resolution": _to(SIZE)},
    "AtelierFillerImages": {"count": _at_most(12)},
    "AtelierRandomArtPrompts": {"count": _at_most(12)},
    # Cells of the pictures' own size show their very pixels.
    "AtelierBlockGrid": {"cell_width": _to(0), "cell_height": _to(0)},
}
"""What is made smaller, by class and widget: the new value from the shipped one."""


def supply(host: Host) -> None:
    """Put everything in place that the workflows name, but for the checkpoint of version 1.5."""
    models = host.base / "models"
    write_sd1(models / "checkpoints" / "sd-v1-4.ckpt", seed=1)
    write_sd2(models / "checkpoints" / "sd_turbo.safetensors")
    write_lora(models / "loras" / "my-subject.safetensors")
    save_clip(models / "clip_score" / "open_clip_model.safetensors", random_clip(clip_config()))
    pictures = host.base / "input"
    draw_shapes(pictures / "my-pictures", size=SIZE)
    (pictures / "flickr8k").mkdir()
    for number in range(16):
        noise_picture(SIZE, SIZE, number).save(pictures / "flickr8k" / f"{number}.png")
    noise_picture(120, 90, 99).save(pictures / "example.png")
    features = Features({"image": ImageFeature(), "artist": ClassLabel(names=["claude-monet", "mary-cassatt"]),
                         "style": ClassLabel(names=STYLES)})
    rows = [{"image": noise_picture(80, SIZE, number), "artist": number // 2 % 2, "style": number % 2}
            for number in range(6)]
    Dataset.from_list(rows, features=features).save_to_disk(pictures / "wikiart")


def write_lora(path: Path, rank: int = 4) -> Path:
    """A LoRA on the attention of the small checkpoint's first block, in kohya keys, strong enough to be seen."""
    state: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(3)
    for attention, width in (("attn1", 320), ("attn2", 768)):
        for part in ("to_q", "to_k", "to_v"):
            name = f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_{attention}_{part}"
            read = 320 if part == "to_q" else width
            state[f"{name}.lora_down.weight"] = torch.randn(rank, read, generator=generator) / read ** 0.5
            state[f"{name}.lora_up.weight"] = torch.randn(320, rank, generator=generator)
            state[f"{name}.alpha"] = torch.tensor(float(rank))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return path


def small(name: str, fake: FakeLlm, graph: dict[str, Any] | None = None) -> dict[str, Any]:
    """A workflow in API form (or `graph`), made small, its language model being `fake` with the key that its service
    asks for."""
    graph = copy.deepcopy(graph or read_api(name))
    for node in graph.values():
        inputs = node["inputs"]
        # Graphs of the first release lack the widgets that came later.
        inputs |= {widget: change(inputs.get(widget)) for widget, change in CHANGES.get(node["class_type"], {}).items()
                   if not isinstance(inputs.get(widget), list)}
        if node["class_type"] == "AtelierLLM":
            inputs |= {"endpoint": "custom", "base_url": fake.base_url, "credential": KEYS[inputs["endpoint"]]}
    return graph


def node_of(graph: dict[str, Any], kind: str, title: str = "") -> str:
    """The id of the only node of a class, or of the one with that title."""
    (found,) = (number for number, node in graph.items()
                if node["class_type"] == kind and title in ("", node["_meta"]["title"]))
    return found


def saved(host: Host, title: str) -> tuple[Image.Image, dict[str, Any]]:
    """The picture that was saved under a title, and its JSON sidecar."""
    folder = host.base / "output" / "atelier"
    with Image.open(folder / f"{title}.png") as picture:
        picture.load()
    return picture, json.loads((folder / f"{title}.json").read_text(encoding="utf-8"))
