"""Save Titled: names, sidecars, and folders that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kit.node_calls import image_batch, run_node
from PIL import Image

pytestmark = pytest.mark.host


def test_files_are_named_by_title(nodes: dict[str, Any]) -> None:
    import folder_paths

    out = Path(folder_paths.get_output_directory()) / "my cats"
    images = [image_batch(2)]
    manifest = {"version": 1, "width": 8, "height": 8, "seed": None, "cells": []}
    files, = run_node(nodes["AtelierSaveTitled"], images=images, title=["Neon: Whiskers"], folder=["my cats"],
                      prompt=["a cat"], negative=["blurry"], seeds=[3, 4], manifest=[json.dumps(manifest)])
    assert [Path(file).name for file in files] == ["Neon- Whiskers.png", "Neon- Whiskers (2).png"]
    assert sorted(path.suffix for path in out.iterdir()) == [".json"] * 2 + [".png"] * 2 + [".txt"] * 2
    with Image.open(files[1]) as picture:
        assert picture.tobytes() == (images[0][1] * 255).round().byte().numpy().tobytes()
    sidecar = json.loads((out / "Neon- Whiskers (2).json").read_text(encoding="utf-8"))
    assert (sidecar["title"], sidecar["seed"], sidecar["grid"]) == ("Neon: Whiskers", 4, manifest)
    text = (out / "Neon- Whiskers.txt").read_text(encoding="utf-8")
    assert text.startswith("a cat\nNegative prompt: blurry\nSeed: 3")
    for folder in ("../elsewhere", "/tmp", "a/../.."):
        with pytest.raises(Exception, match="cannot be a file name"):
            run_node(nodes["AtelierSaveTitled"], images=images, folder=[folder])
    with pytest.raises(Exception, match=r"width is \[1\]"):
        run_node(nodes["AtelierSaveTitled"], images=images, manifest=[json.dumps(manifest | {"width": [1]})])
