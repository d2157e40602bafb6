"""Check Training Set and Join Training Sets, called as the host calls them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kit.node_calls import image_batch, run_node
from kit.pack import pack_module
from kit.pictures import noise_picture

pytestmark = pytest.mark.host


def test_faults_are_told_and_left_out_where_asked(nodes: dict[str, Any], in_input: Path) -> None:
    for name, size in (("a", (200, 200)), ("b", (300, 300)), ("c", (40, 40))):
        noise_picture(300, 300).resize(size).save(in_input / f"{name}.png")
    data, _ = run_node(nodes["AtelierImageFolder"], folder=in_input.name, resolution=128)
    check = partial(run_node, nodes["AtelierCheckTrainingSet"], training_set=data, sharpness=1)
    kept, sheet, report = check()
    assert kept is data
    assert sheet.shape[0] == 1
    assert report.splitlines()[0] == "2 of 3 pictures are faulty, 0 left out"
    assert "a.png: duplicate (like b.png)" in report
    assert "tiny (enlarged 3.2 times)" in report
    kept, _, report = check(drop_tiny=True)
    assert [sample.image.stem for sample in kept.samples] == ["a", "b"]
    assert report.splitlines()[0].endswith("1 left out")
    kept, *_ = check(drop_duplicates=True)
    assert [sample.image.stem for sample in kept.samples] == ["b", "c"]


def test_the_widgets_defaults_are_the_librarys(nodes: dict[str, Any], pack: ModuleType) -> None:
    faults = pack_module(pack, "atelier.dataset.faults")
    defaults = {each.id: each.default for each in nodes["AtelierCheckTrainingSet"].GET_SCHEMA().inputs[1:]}
    assert (defaults["sharpness"], defaults["enlarged"]) == (faults.SHARPNESS, faults.ENLARGED)


def test_two_resolutions_of_a_folder_are_joined(nodes: dict[str, Any], in_input: Path) -> None:
    noise_picture(200, 200).save(in_input / "a.png")
    small, large = (run_node(nodes["AtelierImageFolder"], folder=in_input.name, resolution=size)[0]
                    for size in (64, 128))
    data, sheet = run_node(nodes["AtelierJoinTrainingSets"], first=small, second=large)
    assert [data.resolution_of(sample).size for sample in data.samples] == [64, 128]
    assert sheet.shape[0] == 1


def test_each_picture_of_a_graph_gets_its_line(nodes: dict[str, Any], models: Path) -> None:
    def captions(text: str) -> list[str]:
        data, = run_node(nodes["AtelierImagesToTrainingSet"], images=image_batch(2), captions=text, trigger=" sks ",
                         resolution=64, repeats=3)
        assert [sample.repeats for sample in data.samples] == [3, 3] and data.resolution.size == 64
        return [sample.captions[0] for sample in data.samples]

    assert captions(" a fox \n\n a hen ") == ["sks, a fox", "sks, a hen"]
    assert captions("a fox") == ["sks, a fox"] * 2
    assert captions(" \n") == ["sks"] * 2
