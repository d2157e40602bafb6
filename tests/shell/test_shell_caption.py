"""`python -m atelier caption`, asking a server on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.fake_vision import FakeVision, description, write_numbered
from kit.shell import shell

from atelier.errors import MissingPackage

KEY = "sk-a-key-of-nobody-0123456789"


@pytest.fixture
def fake() -> Iterator[FakeVision]:
    with FakeVision() as running:
        yield running


def test_a_folder_is_described_once_with_the_key_that_was_named(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fake: FakeVision, tmp_path: Path) -> None:
    pictures = write_numbered(tmp_path / "pictures", 3)
    pictures[1].with_suffix(".txt").write_text("by hand", encoding="utf-8")
    monkeypatch.setenv("MY_KEY", KEY)
    keys = tmp_path / "credentials.toml"
    keys.write_text(f'[MY_KEY]\nbase_urls = ["{fake.base_url}"]\n', encoding="utf-8")
    keys.chmod(0o600)
    ask = ("caption", tmp_path / "pictures", "--endpoint", fake.base_url, "--model", "fake", "--credential", "MY_KEY",
           "--credentials", keys, "--trigger", "ohwx", "--json")
    code, out, said = shell(capsys, *ask)
    assert code == 0, said
    assert KEY not in out + said
    assert {request.headers.get("authorization") for request in fake.requests} == {f"Bearer {KEY}"}
    expected = [f"ohwx, {description(0)}", "by hand", f"ohwx, {description(2)}"]
    assert [path.with_suffix(".txt").read_text(encoding="utf-8").strip() for path in pictures] == expected
    told = json.loads(out)["pictures"]
    assert [(one["caption"], one["source"]) for one in told] == list(zip(expected, ("model", "file", "model"),
                                                                          strict=True))
    asked = len(fake.requests)
    code, out, _ = shell(capsys, *ask[:-1])
    assert code == 0 and out.strip() == "3 pictures have captions: 0 by fake, 3 were there."
    assert len(fake.requests) == asked


def test_what_cannot_be_described_is_named(capsys: pytest.CaptureFixture[str], fake: FakeVision, tmp_path: Path
                                           ) -> None:
    for folder, says in ((tmp_path / "gone", "is not a folder"), (tmp_path, "holds no pictures")):
        code, _, said = shell(capsys, "caption", folder, "--endpoint", fake.base_url, "--model", "fake")
        assert code == 1 and says in said
    pictures = write_numbered(tmp_path / "pictures", 2)
    pictures[0].write_bytes(b"damaged")
    code, out, said = shell(capsys, "caption", tmp_path / "pictures", "--endpoint", fake.base_url, "--model", "fake")
    assert code == 1 and not out and "1 of 2 pictures got no caption: 000.png" in said
    assert pictures[1].with_suffix(".txt").read_text(encoding="utf-8").strip() == description(1)


@pytest.mark.parametrize("error", [MissingPackage("transformers", "counting tokens"), ImportError("broken")])
def test_without_clips_vocabulary_captions_are_made_all_the_same(
        capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fake: FakeVision, tmp_path: Path,
        error: Exception) -> None:
    def absent() -> None:
        raise error

    monkeypatch.setattr("atelier.models.tokenizer.load_tokenizer", absent)
    pictures = write_numbered(tmp_path / "pictures", 1)
    code, _, said = shell(capsys, "caption", tmp_path / "pictures", "--endpoint", fake.base_url, "--model", "fake")
    assert code == 0, said
    assert pictures[0].with_suffix(".txt").read_text(encoding="utf-8").strip() == description(0)
