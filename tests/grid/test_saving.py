"""Saving under a title: names that hold on every system, sidecars, nothing overwritten."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atelier import __version__
from atelier.errors import AtelierError, NameTaken
from atelier.files import file_name, write_text
from atelier.grid import saving
from atelier.grid.saving import LONGEST, Details, free_stem, infotext, parameters, safe_name, save_titled
from atelier.pictures.metadata.comfy_graph import parse_graph
from atelier.pictures.metadata.read import read_prompt
from atelier.pictures.metadata.settings import Lora


@pytest.mark.parametrize(("title", "name"), [
    ("Neon Whiskers", "Neon Whiskers"),
    ("  Neon \n\t Whiskers  ", "Neon Whiskers"),
    ("Café à l’été – «猫» кот", "Café à l’été – «猫» кот"),
    ("Cafe\u0301", "Café"),
    ("What? A <cat> in \"neon\": 50% / 50%", "What- A -cat- in -neon- 50% - 50%"),
    ("../../etc/passwd", "etc-passwd"),
    ("C:\\Windows\\system32", "C-Windows-system32"),
    (".hidden", "hidden"), ("ends with dots...", "ends with dots"), ("...", "untitled"), ("", "untitled"),
    ("   ", "untitled"), ("\0\x07\x1b[31m", "[31m"),
    ("con", "con_"), ("CON", "CON_"), ("com1.final", "com1_.final"), ("nul .txt", "nul_.txt"), ("LPT9", "LPT9_"),
    ("COM¹", "COM¹_"), ("CONIN$", "CONIN$_"), ("console", "console"), ("com10", "com10"), ("auxiliary", "auxiliary"),
    ("right\u202eto left", "rightto left"), ("zero\u200bwidth", "zerowidth"),
    ("👩\u200d🎨 paints", "👩\u200d🎨 paints"), ("half \ud83d emoji", "half emoji"),
])
def test_hostile_titles(title: str, name: str) -> None:
    assert safe_name(title) == name


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=400), st.text("CONPRNAUXcom1lpt9.: /\\-¹", max_size=12),
                 st.characters().map(lambda c: c * 200)))
def test_every_title_gives_a_name_that_every_system_takes(title: str) -> None:
    name = safe_name(title)
    assert file_name(name) == name, "the rule for names that people type, checked elsewhere"
    assert "/" not in name and len(name.encode()) <= LONGEST + 1
    assert safe_name(name) == name, "a name stays itself"


def test_long_titles_are_cut_between_characters() -> None:
    assert safe_name("x" * 500) == "x" * LONGEST
    assert safe_name("猫" * 500) == "猫" * (LONGEST // 3)
    family = "👨\u200d👩\u200d👧"  # 18 bytes drawn as one
    assert safe_name(family * 50) == family * (LONGEST // len(family.encode()))
    # q with two marks has no composed form: all of it stays, or nothing.
    assert safe_name("q\u0308\u0323" * 50) == "q\u0323\u0308" * (LONGEST // 5)


def test_names_that_are_taken_get_a_number(tmp_path: Path) -> None:
    assert free_stem(tmp_path / "nothing there", "Cat") == "Cat"
    (tmp_path / "cat.PNG").touch()
    assert free_stem(tmp_path, "Cat") == "Cat (2)", "case does not tell names apart on every system"
    (tmp_path / "Cat (2).json").touch()
    assert free_stem(tmp_path, "Cat") == "Cat (3)", "a sidecar alone takes a name too"
    (tmp_path / "Cafe\u0301.png").touch()
    assert free_stem(tmp_path, "Café") == "Café (2)"


DETAILS = Details(title="Neon: Whiskers", prompt="a cat wearing neon-glasses", negative="low quality, blurry",
                  seed=2 ** 63, model="demo", score=0.31239, scored_by="ViT-B-32, cosine")


def test_a_picture_is_saved_with_its_sidecars(tmp_path: Path) -> None:
    picture = Image.effect_noise((16, 8), 50).convert("RGB")
    saved = save_titled(picture, tmp_path / "new folder", DETAILS, metadata={"prompt": "{\"1\": \"猫\"}"},
                        extra={"workflow": "approach 1"})
    assert sorted(path.name for path in (tmp_path / "new folder").iterdir()) == [
        "Neon- Whiskers.json", "Neon- Whiskers.png", "Neon- Whiskers.txt"]
    with Image.open(saved.picture) as stored:
        assert stored.tobytes() == picture.tobytes()
        assert stored.text == {"prompt": "{\"1\": \"猫\"}"}
    assert json.loads(saved.details.read_text(encoding="utf-8")) == {
        "title": "Neon: Whiskers", "prompt": "a cat wearing neon-glasses", "negative": "low quality, blurry",
        "seed": 2 ** 63, "model": "demo", "score": 0.31239, "scored_by": "ViT-B-32, cosine",
        "file": "Neon- Whiskers.png", "width": 16, "height": 8, "workflow": "approach 1"}
    assert saved.text.read_text(encoding="utf-8") == (
        "a cat wearing neon-glasses\nNegative prompt: low quality, blurry\n"
        'Seed: 9223372036854775808, Model: demo, Title: "Neon: Whiskers", CLIP score: 0.3124, '
        'Scored by: "ViT-B-32, cosine"\n')


def test_what_is_unknown_is_left_out() -> None:
    assert infotext(Details(prompt="a cat")) == "a cat"
    assert infotext(Details(prompt="a cat", seed=0)) == "a cat\nSeed: 0"


def test_the_field_that_programs_read_says_who_wrote_it(tmp_path: Path) -> None:
    written = parameters(DETAILS)["parameters"]
    assert written.startswith("a cat wearing neon-glasses\nNegative prompt: low quality, blurry\nSeed: 92233720")
    assert written.endswith(f", Version: Atelier {__version__}") and "\n" not in written[80:]


@pytest.mark.parametrize("details", [
    DETAILS, Details(title="a", prompt="a cat"), Details(prompt="a cat"), Details(title="a", negative="dog"),
    Details(prompt="two\nlines", negative="two\nmore", seed=0, title="[1], \"2\""),
    Details(prompt="Steps: 5, Seed: 3\nof stone", title="Steps")])
def test_what_is_saved_is_read_again(details: Details, tmp_path: Path) -> None:
    graph = {"3": {"class_type": "KSampler", "inputs": {
        "seed": 77, "steps": 9, "cfg": 3.5, "sampler_name": "euler", "scheduler": "karras", "positive": ["6", 0],
        "negative": ["6", 0]}}, "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "all lines"}}}
    for more in ({}, {"prompt": json.dumps(graph)}):
        saved = save_titled(Image.new("RGB", (4, 4)), tmp_path, details, metadata={**parameters(details), **more})
        found = read_prompt(saved.picture)
        assert found.program == "Atelier"
        assert found.positive == (details.prompt or ("all lines" if more else ""))
        assert found.negative == (details.negative or ("all lines" if more else ""))
        assert found.seed == (details.seed if details.seed is not None else 77 if more else None)
        assert (found.steps, found.sampler) == ((9, "euler") if more else (None, ""))


def test_what_the_graph_says_of_the_picture_is_written_and_read_by_the_node_that_saved_it(tmp_path: Path) -> None:
    def sampler(steps: int, model: str) -> dict[str, Any]:
        return {"class_type": "KSampler", "inputs": {
            "seed": 77, "steps": steps, "cfg": 3.5, "sampler_name": "euler_ancestral", "scheduler": "sgm_uniform",
            "positive": ["6", 0], "negative": ["6", 0], "model": [model, 0]}}

    graph = {"3": sampler(9, "4"), "5": sampler(30, "7"),
             "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "x"}},
             "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "base"}},
             "7": {"class_type": "LoraLoader", "inputs": {
                 "model": ["4", 0], "lora_name": "ink", "strength_model": 0.5}},
             "8": {"class_type": "AtelierSaveTitled", "inputs": {"images": ["3", 0]}},
             "9": {"class_type": "AtelierSaveTitled", "inputs": {"images": ["5", 0]}}}
    for node, steps, loras in (("8", 9, ()), ("9", 30, (Lora("ink", 0.5),))):
        said = parameters(Details(title="A", prompt="a cat"), parse_graph(graph, node), node)
        assert said["parameters"] == (
            f"a cat\nNegative prompt: x\nSteps: {steps}, Sampler: euler_ancestral, Schedule type: sgm_uniform, "
            f"CFG scale: 3.5, Seed: 77, Model: base, Title: A, Node: {node}, Version: Atelier {__version__}")
        saved = save_titled(Image.new("RGB", (4, 4)), tmp_path, Details(title="A"), metadata={
            **said, "prompt": json.dumps(graph)})
        found = read_prompt(saved.picture)
        assert (found.steps, found.sampler, found.scheduler) == (steps, "euler_ancestral", "sgm_uniform")
        assert (found.positive, found.loras, found.left_out) == ("a cat", loras, {})


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in range(4)]
    saved = [save_titled(picture, tmp_path, Details(title=title)) for picture, title in
             zip(pictures, ["A cat", "A CAT", "A cat", "a/cat"], strict=True)]
    assert [s.picture.name for s in saved] == ["A cat.png", "A CAT (2).png", "A cat (3).png", "a-cat.png"]
    for s, picture in zip(saved, pictures, strict=True):
        with Image.open(s.picture) as stored:
            assert stored.tobytes() == picture.tobytes()


@pytest.mark.parametrize("ending", [".txt", ".json", ".png"])
def test_a_name_that_another_process_takes_meanwhile_stays_its_own(ending: str, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    look = saving.free_stem

    def outrun(folder: Path, *args: Any) -> str:
        stem = look(folder, *args)
        (folder / f"Cat{ending}").write_text("theirs")
        return stem

    monkeypatch.setattr(saving, "free_stem", outrun)
    saved = save_titled(Image.new("RGB", (4, 4)), tmp_path, Details(title="Cat"))
    assert saved.picture.name == "Cat (2).png" and saved.picture.is_file()
    assert json.loads(saved.details.read_text(encoding="utf-8"))["file"] == "Cat (2).png"
    assert [path.name for path in tmp_path.glob("Cat.*")] == [f"Cat{ending}"]
    assert (tmp_path / f"Cat{ending}").read_text() == "theirs"


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_is_not_to_be_replaced_stays(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(path: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no links on this disk")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", none)
    path = tmp_path / "cat.txt"
    write_text(path, "first", replace=False)
    with pytest.raises(NameTaken, match=r"cat\.txt is there already"):
        write_text(path, "second", replace=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["cat.txt"] and path.read_text() == "first"
    assert path.stat().st_nlink == 1


def test_a_failure_leaves_no_half_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image, path: Path, **more: object) -> None:
        Path(path).write_bytes(b"half a picture")
        raise RuntimeError

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(RuntimeError):
        save_titled(Image.new("RGB", (4, 4)), tmp_path, Details(title="cat"))
    assert not list(tmp_path.iterdir()), "sidecars of no picture"


def test_half_a_character_spoils_nothing(tmp_path: Path) -> None:
    """JSON may hold half of a pair of surrogates, and so may what a language model or a queued graph hands over."""
    half = "a cat \ud83d"
    saved = save_titled(Image.new("RGB", (4, 4)), tmp_path, Details(title=half, prompt=half, negative=half, model=half),
                        metadata={"note": half}, extra={"grid": {"label": half}})
    assert saved.picture.name == "a cat.png"
    stored = json.loads(saved.details.read_text(encoding="utf-8"))
    assert stored["prompt"] == stored["grid"]["label"] == "a cat \ufffd"
    assert saved.text.read_text(encoding="utf-8").startswith("a cat \ufffd\nNegative prompt: a cat \ufffd\n")
    with Image.open(saved.picture) as picture:
        assert picture.text["note"] == "a cat \ufffd"


def test_a_folder_that_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(AtelierError, match="taken is a file"):
        save_titled(Image.new("RGB", (4, 4)), tmp_path / "taken", Details(title="cat"))
