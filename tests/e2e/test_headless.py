"""The example script for timers, run as people run it, against a running ComfyUI."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.host import Host
from PIL import Image

SCRIPT = Path(__file__).resolve().parent.parent.parent / "tools" / "headless.py"
pytestmark = pytest.mark.host


def run(host: Host, folder: Path, graph: Any, *arguments: str, url: str = "") -> subprocess.CompletedProcess[str]:
    path = folder / "my workflow ü.json"
    path.write_text(graph if isinstance(graph, str) else json.dumps(graph, ensure_ascii=False), encoding="utf-8")
    # Isolated: what is installed and where the script is called from must not matter.
    command = [sys.executable, "-I", "-S", "-X", "utf8", str(SCRIPT), str(path), "--url",
               url or f"http://127.0.0.1:{host.port}", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", timeout=300)


def plain(**colour: Any) -> dict[str, Any]:
    """A coloured picture, saved; nothing to load."""
    return {
        "1": {"class_type": "EmptyImage", "_meta": {"title": "Colour"},
              "inputs": {"width": 32, "height": 16, "batch_size": 2, "color": 0xFF0000} | colour},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "headless/ü"}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def test_change_queue_and_fetch(host: Host, tmp_path: Path) -> None:
    done = run(host, tmp_path, plain(), "--set", "Colour.color=255", "--set", "1.width=48", "--out", "new folder")
    assert done.returncode == 0, done.stderr
    files = [Path(line) for line in done.stdout.splitlines()]
    assert len(files) == 2 and all(file.parent == Path("new folder") for file in files), "previews stay where they are"
    for file in files:
        with Image.open(tmp_path / file) as picture:
            assert picture.size == (48, 16)
            assert (np.asarray(picture.convert("RGB")) == (0, 0, 255)).all()
    assert "Colour …" in done.stderr


def test_the_first_picture_replaces_yesterdays(host: Host, tmp_path: Path) -> None:
    for colour in (0x00FF00, 0x123456):
        done = run(host, tmp_path, plain(batch_size=1, color=colour), "--name", "hero.png")
        assert done.returncode == 0, done.stderr
        with Image.open(tmp_path / "hero.png") as picture:
            assert picture.convert("RGB").getpixel((3, 3)) == (colour >> 16, colour >> 8 & 255, colour & 255)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hero.png", "my workflow ü.json"]


def test_a_picture_is_sent(host: Host, tmp_path: Path) -> None:
    Image.new("RGB", (24, 40), (9, 200, 30)).save(tmp_path / "photo of mine.png")
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}},
             "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "sent"}}}
    done = run(host, tmp_path, graph, "--upload", "1.image=photo of mine.png", "--name", "back.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "back.png") as picture:
        assert picture.size == (24, 40) and picture.convert("RGB").getpixel((0, 0)) == (9, 200, 30)


def test_a_seed_is_drawn_and_progress_told(host: Host, checkpoint: str, tmp_path: Path) -> None:
    text = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a cat"}}
    graph = {"1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}}, "2": text,
             "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
             "4": {"class_type": "KSampler", "inputs": {
                 "model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0], "seed": 1,
                 "steps": 2, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}},
             "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
             "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "a"}}}
    made = []
    for name in ("a.png", "b.png"):
        done = run(host, tmp_path, graph, "--set", "KSampler.seed=random", "--name", name)
        assert done.returncode == 0, done.stderr
        assert "KSampler …" in done.stderr and "2 of 2" in done.stderr
        with Image.open(tmp_path / name) as picture:
            made.append(np.asarray(picture).astype(int))
    assert made[0].std() > 5 and np.abs(made[0] - made[1]).mean() > 1


@pytest.mark.parametrize(("graph", "arguments", "code", "message"), [
    (plain(), ["--set", "Colour.colour=1"], 2, "has no input 'colour'"),
    (plain(), ["--set", "Color.color=1"], 2, "names 0 nodes"),
    (plain(), ["--set", "nonsense"], 2, "has no '='"),
    (plain(color=-5), [], 1, "EmptyImage: Value -5 smaller than min"),
    ({"1": {"class_type": "Missing", "inputs": {}}}, [], 1, "Missing"),
    ({"nodes": [], "links": []}, [], 1, "no workflow in API form"),
    ("[1, 2", [], 1, "Expecting"),
    (plain(), ["--upload", "1.width=gone.png"], 1, "gone.png")])
def test_what_goes_wrong_is_one_line(host: Host, tmp_path: Path, graph: Any, arguments: list[str], code: int,
                                     message: str) -> None:
    done = run(host, tmp_path, graph, *arguments)
    assert done.returncode == code
    assert message in done.stderr.strip().splitlines()[-1] and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["my workflow ü.json"]


def test_an_error_in_a_node_and_no_server(host: Host, tmp_path: Path) -> None:
    graph = {"1": {"class_type": "AtelierFillerImages", "inputs": {
                 **host.defaults("AtelierFillerImages"), "folder": "no such folder"}},
             "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    done = run(host, tmp_path, graph)
    assert done.returncode == 1 and "AtelierFillerImages: " in done.stderr and "is not a folder" in done.stderr
    # A port that nothing listens on.
    done = run(host, tmp_path, plain(), url="http://127.0.0.1:9")
    assert done.returncode == 1 and "does not answer at http://127.0.0.1:9" in done.stderr
