"""The verbs for pictures that are there: grid and score."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kit.clip_models import clip_config, random_clip, save_clip
from kit.pictures import noise_picture, write_pictures
from kit.shell import shell
from PIL import Image

from atelier.grid.saving import Details, save_titled


def test_a_grid_goes_into_a_png_file_alone(capsys, tmp_path: Path) -> None:
    """Otherwise the manifest would get the picture's name."""
    picture = write_pictures(tmp_path / "pictures", [(32, 32)]) / "p0.png"
    for out in ("grid.json", ".", "grid", "grid.jpg"):
        code, printed, err = shell(capsys, "grid", picture, "--block", 1, "--out", tmp_path / out)
        assert (code, printed) == (1, "") and ".png" in err
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_grid_places_every_picture_and_writes_a_manifest(capsys, tmp_path: Path) -> None:
    write_pictures(tmp_path / "unique", [(40, 40)] * 4, captions=False)
    fillers = tmp_path / "fillers"
    fillers.mkdir()
    for i in range(12):
        noise_picture(40, 40, 100 + i).save(fillers / f"{i}.png")
    code, out, err = shell(capsys, "grid", tmp_path / "unique", "--fillers", fillers, "--cell", 40, "--out",
                           tmp_path / "grid.png")
    assert code == 0, err
    assert "4 pictures, 12 fillers" in out
    manifest = json.loads((tmp_path / "grid.json").read_text(encoding="utf-8"))
    grid = Image.open(tmp_path / "grid.png")
    assert grid.size == (2 * (2 * 40 + 4) + 10 + 30,) * 2
    unique = {cell["picture"]: cell["box"] for cell in manifest["cells"] if cell["kind"] == "unique"}
    for i in range(4):
        box = unique[i]
        cell = grid.crop((box["x"], box["y"], box["x"] + 40, box["y"] + 40))
        assert (np.asarray(cell) == np.asarray(noise_picture(40, 40, i))).all()
    code, _, err = shell(capsys, "grid", tmp_path / "unique")
    assert code == 1
    assert "--fillers" in err


def test_score_prints_a_table(capsys, tmp_path: Path) -> None:
    model = save_clip(tmp_path / "clip", random_clip(clip_config()))
    write_pictures(tmp_path / "pictures", [(40, 40)] * 3)
    code, out, err = shell(capsys, "score", tmp_path / "pictures", "--model", model, "--style", "a drawing", "--json",
                           "--csv", tmp_path / "scores.csv")
    assert code == 0, err
    result = json.loads(out)
    assert [row["text"] for row in result["pictures"]] == [f"a fox, red, seen {i}" for i in range(3)]
    assert result["mean"] == pytest.approx(sum(row["score"] for row in result["pictures"]) / 3)
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8").count("\n") == 4
    (tmp_path / "pictures" / "p1.txt").unlink()
    code, _, err = shell(capsys, "score", tmp_path / "pictures", "--model", model)
    assert code == 1
    assert "p1.png" in err


def test_score_takes_the_prompt_that_a_picture_was_saved_with(capsys, tmp_path: Path) -> None:
    model = save_clip(tmp_path / "clip", random_clip(clip_config()))
    prompts = ["a cat\nin the rain", "a dog", "Title: of a film", "a bird\nin snow", "a fish"]
    for place, (prompt, more) in enumerate(zip(prompts, [
            {"negative": "bad"}, {"seed": 3, "model": "demo"}, {}, {"negative": "bad\nworse", "seed": 3}, {}],
            strict=True)):
        saved = save_titled(noise_picture(40, 40, place), tmp_path / "saved",
                            Details(title=f"{place}, a title", prompt=prompt, **more))
        if place % 2:
            saved.details.unlink()
    code, out, err = shell(capsys, "score", tmp_path / "saved", "--model", model, "--json")
    assert code == 0, err
    assert [row["text"] for row in json.loads(out)["pictures"]] == prompts


@pytest.mark.parametrize("details", [Details(negative="bad"), Details(title="C", seed=1), Details(title="C")])
@pytest.mark.parametrize("with_json", [True, False])
def test_score_refuses_pictures_that_were_saved_without_a_prompt(capsys, tmp_path: Path, details: Details,
                                                                 with_json: bool) -> None:
    saved = save_titled(noise_picture(40, 40, 0), tmp_path, details)
    if not with_json:
        saved.details.unlink()
    code, _, err = shell(capsys, "score", saved.picture, "--model", tmp_path / "any")
    assert code == 1
    assert saved.picture.name in err and "--text" in err


def test_score_names_a_text_in_another_encoding(capsys, tmp_path: Path) -> None:
    write_pictures(tmp_path, [(40, 40)])
    (tmp_path / "p0.txt").write_bytes("ein Mädchen".encode("latin-1"))
    code, _, err = shell(capsys, "score", tmp_path, "--model", tmp_path / "any")
    assert code == 1
    assert "p0.txt is not UTF-8" in err


def test_pictures_that_are_not_there_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no picture", encoding="utf-8")
    for given, says in ((("empty", "gone.png"), f"{tmp_path / 'gone.png'} does not exist"),
                        (("empty", "notes"), f"no pictures in {tmp_path / 'empty'}, {tmp_path / 'notes'}.")):
        code, out, err = shell(capsys, "grid", *(tmp_path / name for name in given), "--block", 1, "--out",
                               tmp_path / "grid.png")
        assert (code, out) == (1, "") and says in err
    assert not (tmp_path / "grid.png").exists()


def test_all_pictures_that_cannot_be_read_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", [(40, 40)] * 4, captions=False)
    for name in ("p1.png", "p3.png"):
        (tmp_path / "pictures" / name).write_bytes(b"damaged")
    code, out, err = shell(capsys, "grid", tmp_path / "pictures", "--block", 1, "--out", tmp_path / "grid.png")
    assert (code, out) == (1, "") and "2 pictures cannot be read: p1.png (" in err and "; p3.png (" in err
    assert "p0.png" not in err and not (tmp_path / "grid.png").exists()
