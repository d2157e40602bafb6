"""CLIP Score and Pick Best: lists in, lists out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.node_calls import image_batch, run_node

pytestmark = pytest.mark.host


def test_pick_best_returns_the_best_of_mixed_sizes_unchanged(nodes: dict[str, Any], clip_score_model: str) -> None:
    images = [image_batch(2), image_batch(3, (40, 20), seed=1)]
    scores, mean, table, annotated = run_node(nodes["AtelierCLIPScore"], images=images, text=["a cat"],
                                              model=[clip_score_model], references=[image_batch(1)])
    assert len(scores.items) == 5 and mean == scores.mean
    assert table == scores.table() and "tiny clip, cosine, crop center" in table and "likeness" in table
    assert [picture.shape[2] for picture in annotated] == [24, 24, 40, 40, 40]
    assert annotated[0].shape[1] > 16
    best, chosen = run_node(nodes["AtelierPickBest"], images=images, scores=[scores], k=[2])
    singles = [image[None] for part in images for image in part]
    order = sorted(range(5), key=lambda i: -scores.items[i].value)[:2]
    assert all(torch.equal(picture, singles[i]) for picture, i in zip(best, order, strict=True))
    assert [s.value for s in chosen.items] == [scores.items[i].value for i in order]


def test_one_text_for_each_batch_or_picture(nodes: dict[str, Any], clip_score_model: str) -> None:
    images = [image_batch(2), image_batch(1)]

    def texts(*given: str) -> list[str]:
        scores, *_ = run_node(nodes["AtelierCLIPScore"], images=images, text=list(given), model=[clip_score_model])
        return [score.text for score in scores.items]

    assert texts("a", "b") == ["a", "a", "b"]
    assert texts("a", "b", "c") == ["a", "b", "c"]
    with pytest.raises(Exception, match="3 pictures and 4 texts"):
        texts("a", "b", "c", "d")


def test_another_model_under_the_same_name_is_scored_anew(nodes: dict[str, Any], clip_score_model: str) -> None:
    """The host takes the result from its cache while the fingerprint stays."""
    import folder_paths

    node = nodes["AtelierCLIPScore"]
    before = node.fingerprint_inputs(model=[clip_score_model])
    assert node.fingerprint_inputs(model=[clip_score_model]) == before
    folder = next(Path(root) / clip_score_model for root in folder_paths.get_folder_paths("clip_score")
                  if (Path(root) / clip_score_model).is_dir())
    weights = next(folder.glob("*.safetensors"))
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 10**9))
    assert node.fingerprint_inputs(model=[clip_score_model]) != before


def test_table_format_csv(nodes: dict[str, Any], clip_score_model: str) -> None:
    table = run_node(nodes["AtelierCLIPScore"], images=[image_batch(1)], text=["a"], model=[clip_score_model],
                     table_format=["csv"])[2]
    assert table.startswith("picture,score,cosine,") and table.count("\n") == 2


def test_a_head_and_dino_give_columns_of_their_own(nodes: dict[str, Any], clip_score_model: str, tmp_path: Path
                                                     ) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import Dinov2Config, Dinov2Model

    root = tmp_path / "clip_score"
    width = len(load_file(next((root / clip_score_model).glob("*.safetensors")))["visual_projection.weight"])
    save_file({"weight": torch.zeros(1, width), "bias": torch.tensor([5.5])}, root / "head.safetensors")
    Dinov2Model(Dinov2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=56)
                ).save_pretrained(root / "dino")
    node, inputs = nodes["AtelierCLIPScore"], {"images": [image_batch(2)], "text": ["a"], "model": [clip_score_model]}
    before = node.fingerprint_inputs(model=[clip_score_model], aesthetic_head=["none"], likeness_model=["none"])
    assert before == node.fingerprint_inputs(model=[clip_score_model])
    assert before != node.fingerprint_inputs(model=[clip_score_model], aesthetic_head=["head.safetensors"])
    chosen = {"aesthetic_head": ["head.safetensors"], "likeness_model": ["dino"]}
    scores, _, table, _ = run_node(node, **inputs, **chosen, references=[image_batch(1)])
    assert [score.aesthetic for score in scores.items] == [5.5, 5.5]
    assert "likeness by dino" in table and "aesthetic by head" in table
    with pytest.raises(Exception, match="likeness_model is 'dino', but there are no references"):
        run_node(node, **inputs, **chosen)
    assert "gone" in node.validate_inputs(model=[clip_score_model], aesthetic_head=["gone"])
