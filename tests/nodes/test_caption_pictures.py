"""Caption Pictures, called as the host calls it: where pictures come from and go to, and what a person changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.fake_vision import FakeVision, description, numbered_picture, write_numbered
from kit.node_calls import run_node
from kit.pack import pack_module

pytestmark = pytest.mark.host
NODE = "AtelierCaptionPictures"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeVision]:
    with FakeVision() as fake:
        yield fake


@pytest.fixture
def fake(server: FakeVision, models: object) -> FakeVision:
    return server.forget()


@pytest.fixture
def llm(pack: ModuleType, fake: FakeVision) -> Any:
    return pack_module(pack, "atelier.prompts.endpoints").LanguageModel(base_url=fake.base_url, model="fake-model")


@pytest.fixture
def node(nodes: dict[str, Any]) -> Any:
    return nodes[NODE]


def texts(data: Any) -> list[str]:
    return [sample.captions[0] for sample in data.samples]


def sidecars(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8").strip() for path in sorted(folder.glob("*.txt"))}


def test_a_folder_becomes_a_training_set_with_captions_and_files(node: Any, llm: Any, fake: FakeVision, in_input: Path
                                                                 ) -> None:
    write_numbered(in_input, 5)
    captions, data = run_node(node, folder=in_input.name, llm=llm, trigger="ohwx", resolution=256)
    assert captions == texts(data) == [f"ohwx, {description(number)}" for number in range(5)]
    assert sidecars(in_input) == {f"{number:03}": text for number, text in enumerate(captions)}
    assert (data.trigger, data.resolution.size, data.notes) == ("ohwx", 256, ())
    assert run_node(node, folder=in_input.name, llm=llm, trigger="ohwx")[0] == captions
    assert len(fake.requests) == 5


def test_pictures_of_the_graph_are_captioned_without_files(node: Any, llm: Any, fake: FakeVision, models: Path) -> None:
    import numpy as np

    images = torch.stack([torch.from_numpy(np.asarray(numbered_picture(number), dtype=np.float32) / 255)
                          for number in (7, 3)])
    captions, data = run_node(node, images=images, llm=llm)
    assert captions == texts(data) == [description(7), description(3)]
    edits = json.dumps({data.samples[1].digest: "a person's words"})
    assert run_node(node, images=images, llm=llm, edits=edits)[0] == [description(7), "a person's words"]
    assert not list(models.rglob("*.txt"))


def test_a_training_set_keeps_what_it_is_apart_from_captions(node: Any, nodes: dict[str, Any], llm: Any,
                                                            fake: FakeVision, in_input: Path) -> None:
    pictures, prior = in_input / "5_rex", in_input / "prior"
    write_numbered(pictures, 3)
    numbered_picture(200).save(prior.mkdir() or prior / "dog.png")
    (pictures / "001.txt").write_text("by hand", encoding="utf-8")
    data, _ = run_node(nodes["AtelierImageFolder"], folder=str(in_input), caption="picture", trigger="ohwx",
                       prior=str(prior), prior_caption="a dog", flip=True)
    captions, captioned = run_node(node, training_set=data, llm=llm)
    assert captions == [f"ohwx, {description(0)}", "ohwx, by hand", f"ohwx, {description(2)}"]
    assert texts(captioned) == [*captions, "a dog"]
    assert [(s.repeats, s.prior, s.digest) for s in captioned.samples] == [(s.repeats, s.prior, s.digest)
                                                                           for s in data.samples]
    assert captioned.flip
    assert sorted(fake.seen()) == [0, 2]
    assert not list(prior.glob("*.txt"))


def test_edits_are_kept_in_files_and_left_out_pictures_are_not_asked_about(node: Any, llm: Any, fake: FakeVision,
                                                                          in_input: Path) -> None:
    write_numbered(in_input, 4)
    _, data = run_node(node, folder=in_input.name, llm=llm)
    digests = [sample.digest for sample in data.samples]
    fake.forget()
    edits = json.dumps({digests[1]: "a person's\n words", digests[2]: None})
    captions, edited = run_node(node, folder=in_input.name, llm=llm, edits=edits, existing="replace", seed=5)
    assert captions == texts(edited) == [description(0), "a person's words", description(3)]
    assert sorted(fake.seen()) == [0, 3]
    assert sidecars(in_input)["001"] == "a person's words"


def test_the_review_gets_every_picture(node: Any, llm: Any, fake: FakeVision, in_input: Path) -> None:
    write_numbered(in_input, 12)
    fake.refuses = lambda body: None
    defaults = {i.id: getattr(i.default, "value", i.default) for i in node.GET_SCHEMA().inputs
                if not i.optional and getattr(i, "default", None) is not None}
    fake.say(refusal="no")
    output = node.execute(**{**defaults, "folder": in_input.name, "llm": llm, "unanswered": "skip"})
    shown = output.ui["captions"]
    assert [item["file"] for item in shown] == [f"{number:03}.png" for number in range(12)]
    assert [item["caption"] for item in shown] == ["", *(description(number) for number in range(1, 12))]
    assert (shown[0]["left_out"], shown[0]["failure"]) == (True, "fake-model refused: no")
    assert output.ui["columns"] == (10,)
    assert len(output.ui["images"]) == 1
    assert len(output.result[0]) == 11


@pytest.mark.parametrize(("inputs", "message"), [
    ({}, "Pictures come from nowhere"), ({"images": torch.zeros(1, 8, 8, 3)}, "folder and images")])
def test_pictures_come_from_one_place(node: Any, llm: Any, fake: FakeVision, in_input: Path, inputs: dict[str, Any],
                                      message: str) -> None:
    with pytest.raises(Exception, match=message):
        run_node(node, llm=llm, folder=in_input.name if inputs else "", **inputs)


def test_without_a_language_model_no_caption_is_invented(node: Any, models: object, in_input: Path) -> None:
    write_numbered(in_input, 1)
    with pytest.raises(Exception, match="no language model to caption"):
        run_node(node, folder=in_input.name)
    assert sidecars(in_input) == {}


def test_no_picture_goes_to_an_address_the_owner_did_not_allow(pack: ModuleType, node: Any, models: object,
                                                              in_input: Path) -> None:
    write_numbered(in_input, 1)
    elsewhere = pack_module(pack, "atelier.prompts.endpoints").LanguageModel(base_url="http://192.0.2.1/v1", model="m")
    with pytest.raises(Exception, match="may not send requests to"):
        run_node(node, folder=in_input.name, llm=elsewhere)


def test_captions_are_written_only_where_a_graph_may(pack: ModuleType, node: Any, nodes: dict[str, Any], llm: Any,
                                                     fake: FakeVision, models: Path, tmp_path: Path) -> None:
    """A folder among the model folders may be read; text files beside its pictures are another matter."""
    folder = models / "loras" / "previews"
    write_numbered(folder, 1)
    with pytest.raises(Exception, match="may not write to"):
        run_node(node, folder=str(folder), llm=llm)
    assert not fake.requests
    assert run_node(node, folder=str(folder), llm=llm, caption_files=False)[0] == [description(0)]


@pytest.mark.parametrize("edits", ["{", "[]", '{"a": 1}', "null"])
def test_edits_that_are_none_are_told(node: Any, llm: Any, fake: FakeVision, in_input: Path, edits: str) -> None:
    write_numbered(in_input, 1)
    with pytest.raises(Exception, match="edits of the captions cannot be read"):
        run_node(node, folder=in_input.name, llm=llm, edits=edits)
