"""Scores, a grid and a titled save through the real host's queue."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kit.clip_models import clip_config, random_clip, random_pictures, save_clip
from kit.graphs import Graph
from kit.host import Host
from PIL import Image

pytestmark = pytest.mark.host


@pytest.fixture
def folder(host: Host) -> Path:
    """A folder of fillers in the host's input, four pictures to score, and a small CLIP model."""
    clip = host.base / "models" / "clip_score" / "tiny clip"
    if not clip.exists():
        save_clip(clip, random_clip(clip_config()))
    fillers = host.base / "input" / "many pictures ü"
    fillers.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(random_pictures([(40 + n, 30) for n in range(14)])):
        picture.save(fillers / f"{number}.png")
    for number, picture in enumerate(random_pictures([(32, 32)] * 4, seed=1)):
        picture.save(host.base / "input" / f"unique {number}.png")
    return fillers


def graph(seed: int) -> Graph:
    loads = {f"load{n}": ("LoadImage", {"image": f"unique {n}.png"}) for n in range(4)}
    joins = {f"join{n}": ("ImageBatch", {"image1": [f"join{n - 1}" if n > 1 else "load0", 0],
                                         "image2": [f"load{n}", 0]}) for n in range(1, 4)}
    return Graph(
        **loads, **joins,
        score=("AtelierCLIPScore", {"images": ["join3", 0], "text": "a cat wearing neon-glasses",
                                    "model": "tiny clip"}),
        best=("AtelierPickBest", {"images": ["join3", 0], "scores": ["score", 0], "k": 2}),
        show=("PreviewImage", {"images": ["score", 3]}),
        fillers=("AtelierFillerImages", {"folder": "many pictures ü", "count": 12, "seed": seed}),
        grid=("AtelierBlockGrid", {"images": ["join3", 0], "fillers": ["fillers", 0], "filler_sources": ["fillers", 1],
                                   "scores": ["score", 0], "seed": seed, "cell_width": 32, "cell_height": 32}),
        save=("AtelierSaveTitled", {"images": ["grid", 0], "title": "What? A grid: 4/16", "manifest": ["grid", 1],
                                    "prompt": "a cat wearing neon-glasses"}),
        winners=("AtelierSaveTitled", {"images": ["best", 0], "scores": ["best", 1], "title": "winner"}))


def test_score_pick_compose_and_save(host: Host, folder: Path) -> None:
    result = host.queue(graph(5).fill(host), timeout=180)
    assert result.status == "success", result.error
    assert "tiny clip, cosine, crop center" in result.text("score") and "n 4" in result.text("score")
    assert len(result.pictures("show")) == 4
    grid, = result.pictures("save")
    assert grid.shape == (176, 176, 3)  # 15 + (32 + 4 + 32) + 10 + (32 + 4 + 32) + 15
    out = host.base / "output" / "atelier"
    about = json.loads((out / "What- A grid- 4-16.json").read_text(encoding="utf-8"))
    unique = {cell["picture"]: cell for cell in about["grid"]["cells"] if cell["kind"] == "unique"}
    for number in range(4):
        with Image.open(host.base / "input" / f"unique {number}.png") as picture:
            box = unique[number]["box"]
            assert np.array_equal(grid[box["y"]:box["y"] + 32, box["x"]:box["x"] + 32], np.asarray(picture))
    names = [cell["origin"]["source"] for cell in about["grid"]["cells"] if cell["kind"] == "filler"]
    assert len(set(names)) == 12 and set(names) <= {path.name for path in folder.iterdir()}
    # The two best, best first, each with its score; and the graph in the file, as the host's own node writes it.
    values = [json.loads((out / f"winner{n}.json").read_text(encoding="utf-8"))["score"] for n in ("", " (2)")]
    assert values == sorted((cell["origin"]["score"] for cell in unique.values()), reverse=True)[:2]
    with Image.open(out / "winner.png") as picture:
        assert json.loads(picture.text["prompt"])["winners"]["class_type"] == "AtelierSaveTitled"


def test_the_seed_decides_the_places_and_mistakes_reach_the_user(host: Host, folder: Path) -> None:
    first, again, other = (host.queue(made.fill(host), timeout=180).pictures("save")[0]
                           for made in (graph(5), graph(5).change("save", title="again"), graph(6)))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    failed = host.queue(graph(5).change("fillers", count=11).fill(host), timeout=180)
    assert failed.status == "error"
    assert "There are 11 fillers; 4 blocks of 2 × 2 cells with one unique picture each need 12. Give 12" in failed.error
