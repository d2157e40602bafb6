"""Names for new files hold on every system and stay in their folder; files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from atelier.errors import AtelierError
from atelier.files import atomic_file, atomic_folder, file_name


@pytest.mark.parametrize("text", ["cat", "my LoRA 2", "Über-Katze", "猫", "v1.5", "a.b.c", "lpt10"])
def test_good_names_stay(text: str) -> None:
    assert file_name(text) == text


def test_folders_and_spaces_around() -> None:
    assert file_name("  styles\\pencil/soft ") == "styles/pencil/soft"


@pytest.mark.parametrize("text", ["", "  ", "/etc/cat", "..", "../cat", "a/../../cat", "a//b", "a/", "C:\\cat", "cat.",
                                  "a /b", "what?", "a*b", "CON", "con.txt", "Com1", "aux .x", "tab\tbed", "x" * 300])
def test_bad_names_are_refused(text: str) -> None:
    with pytest.raises(AtelierError, match="cannot be a file name"):
        file_name(text)


class HostInterrupt(BaseException):
    """What the host raises to interrupt a node; no `Exception`."""


@pytest.mark.parametrize("error", [HostInterrupt, KeyboardInterrupt, ValueError])
def test_an_interrupt_leaves_what_was_there_and_nothing_else(error: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("before")
    with pytest.raises(error), atomic_file(tmp_path / "file") as part:
        part.write_text("half")
        raise error
    with pytest.raises(error), atomic_folder(tmp_path / "folder") as part:
        (part / "a").write_text("half")
        raise error
    assert {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*") if path.is_file()
            } == {"file": "before", "folder/a": "before"}
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("error", "words", "hint"), [
    (errno.ENOSPC, "The disk is full: ", "Free some space"), (errno.EDQUOT, "The disk is full: ", "Free some space"),
    (errno.EACCES, "permission denied", "close the program"), (errno.EIO, "Input/output error", "")])
def test_what_kept_a_file_from_being_written_is_said(error: int, words: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(AtelierError) as raised, atomic_file(tmp_path / "file"):
        raise OSError(error, os.strerror(error))
    assert words in str(raised.value)
    assert str(tmp_path / "file") in str(raised.value)
    assert hint in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_comes_back_if_the_new_one_cannot_take_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                 ) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_text("before")
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.name.endswith(".part"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(AtelierError, match="model could not be written: Input/output error"), \
            atomic_folder(tmp_path / "model") as part:
        (part / "a").write_text("after")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["model", "model/a"]
    assert (tmp_path / "model" / "a").read_text() == "before"
