"""Labels in letters that Pillow's own font lacks take a font of the machine, or say what to install."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import ImageFont

from atelier.errors import AtelierError
from atelier.pictures import fonts
from atelier.pictures.labels import strip

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine whose only fonts are those in the folder that this yields."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    monkeypatch.setattr(fonts, "_told", set())
    monkeypatch.setattr(fonts, "_KNOWN", ("nowhere.ttf",))
    monkeypatch.setattr(fonts, "_folders", lambda: [folder, tmp_path / "no such folder"])
    for kept in (fonts.font_for, fonts._others):
        kept.cache_clear()
    yield folder
    for kept in (fonts.font_for, fonts._others):
        kept.cache_clear()


def test_a_font_of_any_name_that_has_the_letters_is_found(bare_machine: Path) -> None:
    assert fonts.font_for("Ж ♞") == ("", "? ?")
    fonts.font_for.cache_clear()
    fonts._others.cache_clear()
    (bare_machine / "deep").mkdir()
    (bare_machine / "broken.ttf").write_bytes(b"no font")
    path = shutil.copy(DEJAVU, bare_machine / "deep" / "myfont.ttf")
    assert fonts.font_for("Ж ♞") == (str(path), "Ж ♞")
    font = ImageFont.truetype(str(path), 16)
    assert bytes(font.getmask("Ж")) != bytes(font.getmask("\uffff"))


def test_plain_letters_are_drawn_alike_on_every_machine(bare_machine: Path) -> None:
    before = np.asarray(strip("a cat, 2 dogs", 200, 40))
    shutil.copy(DEJAVU, bare_machine / "Regular.ttf")
    fonts.font_for.cache_clear()
    fonts._others.cache_clear()
    assert np.array_equal(strip("a cat, 2 dogs", 200, 40), before)


def test_what_no_font_has_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "atelier"):
        assert fonts.font_for("猫 and café")[1] in ("? and café", "? and cafe")
        fonts.font_for("犬")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "猫" in said[0] and "Noto Sans CJK" in said[0]


def test_a_pillow_that_draws_no_scalable_letters_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts.ImageFont, "load_default", lambda size: ImageFont.ImageFont())
    fonts.load_font.cache_clear()
    with pytest.raises(AtelierError, match=r"Writing below pictures \(with FreeType\) needs"):
        fonts.load_font("", 16)
