"""A training set whose captions are written, edited or left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.fake_llm import refusal
from kit.fake_vision import FakeVision, write_numbered

from atelier.captions.caption_files import written_captions
from atelier.captions.request import CaptionRequest
from atelier.captions.run import CaptionWriter
from atelier.captions.training_set import caption_set
from atelier.dataset.folder import FolderOptions, read_folder
from atelier.errors import AtelierError
from atelier.progress import Progress
from atelier.prompts.client import ChatClient
from atelier.prompts.endpoints import LanguageModel


@pytest.mark.parametrize("by", ["a person", "the model"])
def test_a_training_set_of_which_all_is_left_out_is_told_and_prior_pictures_do_not_save_it(
        by: str, fake: FakeVision, tmp_path: Path) -> None:
    write_numbered(tmp_path / "set", 2)
    write_numbered(tmp_path / "prior", 1)
    data = read_folder(tmp_path / "set", FolderOptions(text="x", prior=tmp_path / "prior", prior_text="a dog"))
    fake.refuses = lambda body: refusal("flagged", 400, code="content_filter")
    llm = LanguageModel(base_url=fake.base_url, model="fake-model")
    writer = CaptionWriter(client=ChatClient(llm=llm, pause=0.01), request=CaptionRequest(), progress=Progress())
    first, second = (sample.digest for sample in data.samples if not sample.prior)
    with pytest.raises(AtelierError, match=r"^All 2 pictures are left out\. Put some back"):
        caption_set(data, writer, {first: None, second: None} if by == "a person" else {}, skip_failed=True)
    assert not list(tmp_path.rglob("*.txt"))
    kept = caption_set(data, writer, {first: None, second: "words"})
    assert [sample.captions for sample in kept.data.samples] == [("words",), ("a dog",)]


def test_a_picture_beside_the_topmost_folder_has_no_caption_where_no_table_names_it(tmp_path: Path) -> None:
    picture, = write_numbered(tmp_path / "set", 1)
    assert written_captions([picture], root=tmp_path / "other") == [""]
