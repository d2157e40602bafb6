"""The demo's small CLIP: a folder that transformers reads, and that matches held-out pictures to their captions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from transformers import CLIPModel, CLIPProcessor

from atelier.demo import clip
from atelier.demo.drawing import STYLE_TEXT, caption, draw, held_out_prompts, random_specs
from atelier.score.load import open_scorer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip.expand_clip(tmp_path_factory.mktemp("démo clip") / clip.FOLDER_NAME)


def cosines(folder: Path, pictures: list, texts: list[str]) -> torch.Tensor:
    model, processor = CLIPModel.from_pretrained(folder).float().eval(), CLIPProcessor.from_pretrained(folder)
    with torch.no_grad():
        out = model(**processor(text=texts, images=pictures, return_tensors="pt", padding=True))
        return out.logits_per_image / model.logit_scale.exp()


def test_the_folder_is_the_same_everywhere(folder: Path) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest == clip.DIGEST.read_text().strip()
    before = folder.stat().st_mtime_ns
    assert clip.expand_clip(folder) == folder and folder.stat().st_mtime_ns == before


def test_its_own_caption_ranks_first_of_eight(folder: Path) -> None:
    prompts = held_out_prompts(64)
    scores = cosines(folder, [draw(spec) for spec, _ in prompts], [words for _, words in prompts])
    first = [scores[i, i - i % 8:i - i % 8 + 8].argmax() == i % 8 for i in range(64)]
    assert sum(first) / 64 >= 0.8


def test_it_tells_the_two_styles_apart(folder: Path) -> None:
    specs = random_specs(24, seed=9, held_out=True)
    plain, pencil = (cosines(folder, [draw(spec, style) for spec in specs], [STYLE_TEXT])[:, 0]
                     for style in ("plain", "pencil"))
    assert (pencil > plain).float().mean() >= 0.95


def test_the_packs_scorer_agrees(folder: Path) -> None:
    spec = random_specs(1, seed=2)[0]
    expected = float(cosines(folder, [draw(spec)], [caption(spec)]))
    scored = open_scorer(folder).score([draw(spec)], caption(spec))
    assert scored.items[0].cosine == pytest.approx(expected, abs=1e-3)
