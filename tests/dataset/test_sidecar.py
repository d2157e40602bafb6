"""Text files beside pictures: captions as people write them, and infotexts as programs do."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.pictures import noise_picture

from atelier.dataset.folder import CaptionSource, FolderOptions, read_folder
from atelier.dataset.sidecar import read_sidecar
from atelier.errors import AtelierError
from atelier.grid.saving import Details, save_titled

WEB_UI = """a tin boat, on a lake, <lora:tin:0.8>
in fog
Negative prompt: blurry,
worst quality
Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Model: base, Version: v1.10.1
"""


@pytest.mark.parametrize(("written", "lines"), [
    (WEB_UI, ("a tin boat, on a lake,", "in fog")),
    (WEB_UI + "Template: a {tin|iron} boat\n", ("a tin boat, on a lake,", "in fog")),
    (WEB_UI.replace("\n", "\r\n"), ("a tin boat, on a lake,", "in fog")),
    ("a tin boat\nNegative prompt: blurry\nSeed: 0, Model: base, Title: \"Tin: boat\"\n", ("a tin boat",)),
    ("a tin boat\nTitle: Boat, CLIP score: 0.3124, Scored by: \"ViT-B-32, cosine\"\n", ("a tin boat",)),
    ("a tin boat\nNegative prompt: blurry", ("a tin boat",)),
    ("Negative prompt: blurry\nSteps: 5, Seed: 1", ()), ("Seed: 3, Title: untitled", ()), ("Title: untitled", ()),
    ("a tin boat <lora:tin:0.8>, in fog", ("a tin boat, in fog",)),
])
def test_of_an_infotext_only_the_prompt_counts(tmp_path: Path, written: str, lines: tuple[str, ...]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(written.encode())
    assert read_sidecar(path, by_lines=True) == lines
    assert read_sidecar(path, by_lines=False) == ((" ".join(lines),) if lines else ())


@pytest.mark.parametrize("caption", [
    "Model: a tall woman, in red", "Steps: a stone staircase, Size: large", "Title: of a film, seen from afar",
    "Seed: a sunflower, Model: of clay", "a poster that says \"Steps: 20, Seed: 1\"",
    "Model: made of clay\na second line",
    "no negative prompt: here"])
def test_captions_with_colons_stay_whole(tmp_path: Path, caption: str) -> None:
    (tmp_path / "a.txt").write_text(caption, encoding="utf-8")
    assert read_sidecar(tmp_path / "a.txt", by_lines=True) == tuple(caption.split("\n"))


@pytest.mark.parametrize("captions", [CaptionSource.SIDECAR, CaptionSource.METADATA])
@pytest.mark.parametrize("title", ["Boat", "[1] boat", " a boat:", "{seed}", "a\rb", "ü, \"ö\""])
def test_what_save_titled_wrote_is_a_caption_again(tmp_path: Path, captions: CaptionSource, title: str) -> None:
    save_titled(noise_picture(32, 24, 0), tmp_path,
                Details(title=title, prompt="a tin boat", negative="blurry", seed=0, model="base", score=0.25,
                        scored_by="x, y"))
    data = read_folder(tmp_path, FolderOptions(captions=captions))
    assert data.samples[0].captions == ("a tin boat",)


def test_a_picture_saved_without_a_prompt_has_no_caption(tmp_path: Path) -> None:
    save_titled(noise_picture(32, 24, 0), tmp_path, Details(title="Boat", seed=1))
    with pytest.raises(AtelierError, match=r"no caption.*Boat\.png"):
        read_folder(tmp_path)
