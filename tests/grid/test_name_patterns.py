"""Patterns in names, with what ComfyUI's editor and server make of them (read off both)."""

from __future__ import annotations

import time

import pytest

from atelier.errors import AtelierError
from atelier.files import folder_name
from atelier.grid.name_patterns import fill_pattern

NOW = time.struct_time((2026, 3, 5, 7, 8, 9, 3, 64, 0))
NODES = {"1": {"class_type": "KSampler", "_meta": {"title": "Draw"}, "inputs": {
             "seed": 12, "cfg": 7.0, "denoise": 0.5, "sampler_name": "a/b:c", "model": ["2", 0], "on": True}},
         "2": {"class_type": "X"}, "3": "odd"}


@pytest.mark.parametrize(("text", "filled"), [
    ("%date:yyyy-MM-dd%", "2026-03-05"), ("%date:yy.M.d%/%date:hhmmss%", "26.3.5/070809"), ("%date:h-m-s%", "7-8-9"),
    ("%date:yyy%", "yyy"), ("%date:%", ""), ("%year%-%month%-%day% %hour%%minute%%second%", "2026-03-05 070809"),
    ("%width%x%height%", "640x512"), ("%KSampler.seed%", "12"), ("%Draw.cfg% %Draw.denoise%", "7 0.5"),
    ("%KSampler.sampler_name%", "a_b_c"), ("%KSampler.on%", "true"),
    ("50% of 80%", "50% of 80%"), ("%nothing%", "%nothing%"), ("%KSampler.model%", "%KSampler.model%"),
    ("%Gone.seed%", "%Gone.seed%"), ("100%", "100%")])
def test_patterns_are_filled_and_the_rest_stays(text: str, filled: str) -> None:
    assert fill_pattern(text, (640, 512), NOW, NODES) == filled
    if "." not in text:
        assert fill_pattern(text, (640, 512), NOW) == filled


@pytest.mark.parametrize(("typed", "name"), [
    ("tok/", "tok"), ("tok\\", "tok"), ("a//b/", "a/b"), ("a\\b", "a/b"), ("", ""), ("  ", ""), (" tok ", "tok")])
def test_slashes_at_the_end_of_a_folder_are_no_fault(typed: str, name: str) -> None:
    assert folder_name(typed) == name


@pytest.mark.parametrize("typed", ["/", "/tmp", "../a", "a/../b", "//a", "a/ /b", "C:/x"])
def test_folders_elsewhere_are_refused(typed: str) -> None:
    with pytest.raises(AtelierError, match="cannot be a file name"):
        folder_name(typed)
