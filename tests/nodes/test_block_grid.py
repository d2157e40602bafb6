"""Block Grid: the picture, its manifest and its labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.clip_models import random_pictures
from kit.node_calls import image_batch, run_node

pytestmark = pytest.mark.host


def test_the_manifest_holds_scores_seeds_and_sources(nodes: dict[str, Any], clip_score_model: str,
                                                     in_input: Path) -> None:
    for number, picture in enumerate(random_pictures([(30, 20)] * 14)):
        picture.save(in_input / f"{number}.jpg")
    unique = [image_batch(4, (32, 32))]
    scores = run_node(nodes["AtelierCLIPScore"], images=unique, text=["a cat"], model=[clip_score_model])[0]
    fillers, sources = run_node(nodes["AtelierFillerImages"], folder=str(in_input), count=12)
    assert len(fillers) == len(set(sources)) == 12
    grid, text = run_node(nodes["AtelierBlockGrid"], images=unique, fillers=fillers, filler_sources=sources,
                          scores=[scores], seeds=[7, 8, 9, 10], cell_width=[32], cell_height=[0], captions=["score"])
    manifest = json.loads(text)
    # 2 × 2 blocks of 2 × 2 cells of 32 × (32 + 20 for the strip): 15 + 68 + 10 + 68 + 15, 15 + 108 + 10 + 108 + 15.
    assert tuple(grid.shape) == (1, 256, 176, 3)
    assert (manifest["width"], manifest["height"], len(manifest["cells"])) == (176, 256, 16)
    cells = [cell for cell in manifest["cells"] if cell["kind"] == "unique"]
    for cell in cells:
        box, number = cell["box"], cell["picture"]
        part = grid[0, box["y"]:box["y"] + 32, box["x"]:box["x"] + 32]
        assert torch.equal(part, unique[0][number]), "the pixels are unchanged"
        assert cell["origin"] == {"prompt": "a cat", "seed": 7 + number, "source": "", "label": "",
                                  "score": scores.items[number].value}
    assert [c["origin"]["source"] for c in manifest["cells"] if c["kind"] == "filler"] == sources


def test_a_grid_without_fillers_and_one_with_too_few(nodes: dict[str, Any]) -> None:
    grid, _ = run_node(nodes["AtelierBlockGrid"], images=[image_batch(3)], block=[1], columns=[3], cell_width=[0],
                       cell_height=[0], gaps=["none"])
    assert tuple(grid.shape) == (1, 16, 72, 3)
    assert torch.equal(grid[0, :, 24:48], image_batch(3)[1])
    with pytest.raises(Exception, match=r"2 fillers; 1 blocks .* need 3"):
        run_node(nodes["AtelierBlockGrid"], images=[image_batch(1)], fillers=[image_batch(2)])


def test_labels_are_one_text_or_a_list(nodes: dict[str, Any]) -> None:
    variants = (["früh\n\n cfg 3 "], ["früh|cfg 3"], ["früh", "cfg 3"])
    results = [run_node(nodes["AtelierBlockGrid"], images=[image_batch(2, (64, 32))], block=[1], cell_width=[0],
                        cell_height=[0], labels=labels) for labels in variants]
    assert all(torch.equal(results[0][0], other[0]) and results[0][1] == other[1] for other in results[1:])
    grid, text = results[0]
    boxes = [cell["box"] for cell in json.loads(text)["cells"]]
    assert [cell["origin"]["label"] for cell in json.loads(text)["cells"]] == ["früh", "cfg 3"]
    assert "früh" in text, "a person may read it"
    strips = [grid[0, box["y"] + 32:box["y"] + 52, box["x"]:box["x"] + 64] for box in boxes]
    assert all(strip.std() > 0.02 for strip in strips) and not torch.equal(*strips), "nothing is written"
    with pytest.raises(Exception, match=r"2 pictures and 3 labels.* Write 2 with"):
        run_node(nodes["AtelierBlockGrid"], images=[image_batch(2)], block=[1], labels=["a\nb\nc"])


def test_custom_gaps(nodes: dict[str, Any]) -> None:
    grid, _ = run_node(nodes["AtelierBlockGrid"], images=[image_batch(2)], block=[1], columns=[2], cell_width=[10],
                       cell_height=[10], gaps=["custom"], gap_between=[3], margin=[1], background=["#ff0000"])
    assert tuple(grid.shape) == (1, 12, 25, 3)
    assert torch.equal(grid[0, 0, 0], torch.tensor([1.0, 0.0, 0.0]))
