"""CLIP scores of many pictures against one prompt: Atelier and torchmetrics, same pictures, same random ViT-B/32.

    python benchmarks/score.py [--size smallest|default] [--json]

torchmetrics is called once per picture, the way one gets a value for each: `metric(picture, text)`, which keeps its
running mean by computing everything twice; and by `metric.update`, which gives nothing but the mean in the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

sys.path.append(str(Path(__file__).resolve().parent.parent))

from atelier.models.tokenizer import load_tokenizer
from atelier.score.definitions import Definition
from atelier.score.scorer import ClipScorer

PROMPT = "a cat wearing neon-glasses"


@dataclass(frozen=True)
class Size:
    pictures: int
    side: int


SIZES = {"smallest": Size(pictures=4, side=256), "default": Size(pictures=64, side=512)}


class TensorFeatures(CLIPModel):
    """torchmetrics 1.9 expects the tensors that transformers 4 gave."""

    def get_text_features(self, *args: Any, **kwargs: Any) -> Any:
        return super().get_text_features(*args, **kwargs).pooler_output

    def get_image_features(self, *args: Any, **kwargs: Any) -> Any:
        return super().get_image_features(*args, **kwargs).pooler_output


def engines(pictures: list[Image.Image], device: torch.device) -> dict[str, Callable[[], list[float]]]:
    """Each engine's whole job, from pictures in memory to one value each (or, for `update`, their mean)."""
    from torchmetrics.multimodal.clip_score import CLIPScore

    torch.manual_seed(2)  # a start whose cosines with the prompt are positive: below 0 every value would be 0
    model = TensorFeatures(CLIPConfig()).eval().to(device)
    tokenizer = load_tokenizer()
    tensors = [torch.from_numpy(np.array(picture)).permute(2, 0, 1).to(device) for picture in pictures]

    def atelier() -> list[float]:
        # A new scorer each time, so that no text is known from the round before.
        scorer = ClipScorer(model, lambda text: tokenizer(text)["input_ids"], "ViT-B-32")
        scores = scorer.score(pictures, PROMPT, definition=Definition.TORCHMETRICS)
        return [score.value for score in scores.items]

    def metric() -> CLIPScore:
        return CLIPScore(lambda: (model, CLIPProcessor(CLIPImageProcessorPil(), tokenizer))).to(device)

    def forward() -> list[float]:
        with torch.no_grad():
            scorer = metric()
            return [scorer(tensor, PROMPT).item() for tensor in tensors]

    def update() -> list[float]:
        with torch.no_grad():
            scorer = metric()
            for tensor in tensors:
                scorer.update(tensor, PROMPT)
            return [scorer.compute().item()]

    return {"atelier": atelier, "torchmetrics, metric(picture, text)": forward, "torchmetrics, metric.update": update}


def measure(size: Size, device: torch.device) -> list[dict[str, Any]]:
    """Rows of images per second, and processor seconds, which other programs disturb less."""
    numbers = np.random.default_rng(0)
    pictures = [Image.fromarray(numbers.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((size.side, size.side))
                for _ in range(size.pictures)]
    wall: dict[str, float] = {}
    processor: dict[str, float] = {}
    values: dict[str, list[float]] = {}
    jobs = engines(pictures, device)
    for job in engines(pictures[:2], device).values():  # what only the first call costs
        job()
    for name, job in jobs.items():
        begin, begin_processor = time.perf_counter(), time.process_time()
        values[name] = job()
        wall[name], processor[name] = time.perf_counter() - begin, time.process_time() - begin_processor
    reference = np.array(values["torchmetrics, metric(picture, text)"])
    return [{"engine": name, "images_per_s": round(size.pictures / seconds, 3),
             "processor_s": round(processor[name], 2),
             "largest_difference": float(np.abs(np.array(values[name]) - reference).max()) if len(values[name]) > 1
             else float(abs(values[name][0] - reference.mean()))}
            for name, seconds in wall.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--size", choices=SIZES, default="default")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = SIZES[options.size]
    rows = measure(size, device)
    ours = rows[0]
    print(f"{size.pictures} pictures of {size.side} px, ViT-B/32 float32, {device}, {torch.get_num_threads()} threads")
    for row in rows:
        print(f"{row['engine']:<38}{row['images_per_s']:8.2f} images/s{row['processor_s']:8.1f} s of processor time   "
              f"atelier is {ours['images_per_s'] / row['images_per_s']:.2f} x, by processor time "
              f"{row['processor_s'] / ours['processor_s']:.2f} x   "
              f"values differ by at most {row['largest_difference']:.1e} of 100")
    if options.json:
        print(json.dumps({"device": str(device), "rows": rows}))


if __name__ == "__main__":
    main()
