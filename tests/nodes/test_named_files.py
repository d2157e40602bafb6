"""Files and folders that widgets name: a missing one is told before the run, and a changed one is read again.

The host takes a node's result from its cache while the fingerprint stays.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.host

CHECKPOINT, LORA, FOLDER, CLIP = "a.safetensors", "b.safetensors", "pictures", "tiny clip"
FILES = {CHECKPOINT: "checkpoints", LORA: "loras", FOLDER: "input", CLIP: "clip_score"}
"""Below which folder each is."""
GIVEN: list[tuple[str, dict[str, str]]] = [
    ("AtelierOpenModel", {"model": CHECKPOINT}), ("AtelierConvertCheckpoint", {"checkpoint": CHECKPOINT}),
    ("AtelierModelToCompare", {"checkpoint": CHECKPOINT}), ("AtelierModelToCompare", {"lora": LORA}),
    ("AtelierConvertLora", {"lora": LORA}), ("AtelierResizeLora", {"lora": LORA}),
    ("AtelierImageFolder", {"folder": FOLDER}), ("AtelierFillerImages", {"folder": FOLDER}),
    ("AtelierCaptionPictures", {"folder": FOLDER}), ("AtelierHubDataset", {"dataset": FOLDER}),
    ("AtelierCompareModels", {"score_model": CLIP}), ("AtelierXYGrid", {"score_model": CLIP}),
    ("AtelierTrainingOptions", {"score_model": CLIP})]
UNCHECKED: list[tuple[str, dict[str, str]]] = [
    ("AtelierMergeLoras", {"first": LORA}), ("AtelierMergeLoras", {"second": LORA}),
    ("AtelierImageFolder", {"masks": FOLDER}), ("AtelierImageFolder", {"prior": FOLDER})]
"""The host checks their names itself, or the run does."""


@pytest.fixture
def home(models: Path, monkeypatch: pytest.MonkeyPatch, clip_score_model: str) -> Path:
    """A checkpoint, a LoRA, a folder of pictures and a CLIP model."""
    import folder_paths

    (models / "input" / FOLDER).mkdir(parents=True)
    monkeypatch.setattr(folder_paths, "input_directory", str(models / "input"))
    for name, folder in ((CHECKPOINT, "checkpoints"), (LORA, "loras"), ("a.png", f"input/{FOLDER}")):
        (models / folder / name).write_bytes(b"x")
    return models


def named(home: Path, given: dict[str, str]) -> Path:
    """The file that the widget stands for, or one in its folder."""
    name, = given.values()
    path = home / FILES[name] / name
    return path if path.is_file() else next(file for file in sorted(path.iterdir()) if file.is_file())


@pytest.mark.parametrize(("node", "given"), GIVEN)
def test_a_missing_file_is_told_before_the_run(nodes: dict[str, Any], home: Path, node: str, given: dict[str, str]
                                               ) -> None:
    """A value that comes by a link is not known yet."""
    assert nodes[node].validate_inputs(**given) is True
    assert nodes[node].validate_inputs(**dict.fromkeys(given)) is True
    said = nodes[node].validate_inputs(**dict.fromkeys(given, "gone/gone/gone"))
    assert isinstance(said, str) and "gone" in said


@pytest.mark.parametrize(("node", "given"), GIVEN + UNCHECKED)
def test_a_changed_file_is_read_again(nodes: dict[str, Any], home: Path, node: str, given: dict[str, str]) -> None:
    before = nodes[node].fingerprint_inputs(**given)
    assert before and nodes[node].fingerprint_inputs(**given) == before
    assert not nodes[node].fingerprint_inputs(**dict.fromkeys(given)).strip(), "nothing is named"
    path = named(home, given)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    assert nodes[node].fingerprint_inputs(**given) != before


@pytest.mark.parametrize(("node", "widget"), [
    ("AtelierModelToCompare", "lora"), ("AtelierCompareModels", "score_model"), ("AtelierXYGrid", "score_model"),
    ("AtelierTrainingOptions", "score_model")])
def test_none_is_no_file(nodes: dict[str, Any], home: Path, node: str, widget: str) -> None:
    assert nodes[node].validate_inputs(**{widget: "none"}) is True
    assert not nodes[node].fingerprint_inputs(**{widget: "none"}).strip()


@pytest.mark.parametrize("node", ["AtelierFillerImages", "AtelierCaptionPictures"])
def test_an_empty_folder_beside_a_training_set_is_no_error(nodes: dict[str, Any], home: Path, node: str) -> None:
    assert nodes[node].validate_inputs(folder="") is True
    assert nodes[node].fingerprint_inputs(folder="") == ""


def test_fillers_of_a_training_set_do_not_depend_on_the_folder(nodes: dict[str, Any], home: Path) -> None:
    assert nodes["AtelierFillerImages"].fingerprint_inputs(folder=FOLDER, training_set=object()) == ""


def test_a_data_set_of_the_hub_does_not_change(nodes: dict[str, Any], home: Path) -> None:
    assert nodes["AtelierHubDataset"].fingerprint_inputs(dataset="owner/pictures") == ""


@pytest.mark.parametrize("widget", ["aesthetic_head", "likeness_model"])
def test_clip_score_checks_each_of_its_models(nodes: dict[str, Any], home: Path, widget: str) -> None:
    validate = nodes["AtelierCLIPScore"].validate_inputs
    assert validate(model=[CLIP], **{widget: [CLIP]}) is True
    for unknown in ([None], ["none"], None, []):
        assert validate(model=[CLIP], **{widget: unknown}) is True
    assert "gone" in validate(model=[CLIP], **{widget: ["gone"]})
    assert "gone" in validate(model=["gone"], **{widget: [CLIP]}), "the second is there, the first is not"


def test_the_first_missing_file_of_a_model_to_compare_is_told(nodes: dict[str, Any], home: Path) -> None:
    validate = nodes["AtelierModelToCompare"].validate_inputs
    assert validate(checkpoint=CHECKPOINT, lora=LORA) is True
    assert "no-model" in validate(checkpoint="no-model", lora=LORA)
    assert "no-lora" in validate(checkpoint=CHECKPOINT, lora="no-lora")


@pytest.mark.parametrize(("kind", "axis"), [("checkpoints", "checkpoint"), ("loras", "lora")])
def test_a_grid_over_files_is_drawn_again_when_there_are_more(nodes: dict[str, Any], home: Path, kind: str, axis: str
                                                              ) -> None:
    """An axis may name them with a *."""
    import folder_paths

    node = nodes["AtelierXYGrid"]
    before, other = node.fingerprint_inputs(x=axis), node.fingerprint_inputs(x="seed", y="steps")
    assert node.fingerprint_inputs(y=axis) == before != other
    (home / kind / "new.safetensors").touch()
    folder_paths.filename_list_cache.clear()
    assert node.fingerprint_inputs(x=axis) != before
    assert node.fingerprint_inputs(x="seed", y="steps") == other


@pytest.mark.parametrize("node", ["AtelierTrainLora", "AtelierExportTraining"])
def test_the_name_of_a_new_file_is_checked_before_the_run(nodes: dict[str, Any], node: str) -> None:
    assert nodes[node].validate_inputs(name="my lora") is True
    assert nodes[node].validate_inputs() is True
    assert "cannot be a file name" in nodes[node].validate_inputs(name="../a")


def test_a_picture_that_is_not_there_is_told(nodes: dict[str, Any], home: Path) -> None:
    node = nodes["AtelierReadPrompt"]
    assert node.validate_inputs(image="gone.png") == "There is no picture 'gone.png' in the input folder."
    assert node.fingerprint_inputs(image="gone.png") == node.fingerprint_inputs() == ""
    assert node.fingerprint_inputs(image=f"{FOLDER}/a.png")


def test_an_example_set_that_grew_is_read_again(nodes: dict[str, Any], home: Path) -> None:
    def add(positive: str) -> str:
        nodes["AtelierAddPromptExample"].execute(positive=positive, name="mine", form="tags")
        return nodes["AtelierWritePrompt"].fingerprint_inputs(example_set="mine")

    first = add("a fox, snow")
    assert first and add("a hen, straw") != first
    assert nodes["AtelierWritePrompt"].fingerprint_inputs() == nodes["AtelierWritePrompt"].fingerprint_inputs(
        example_set="")
