"""What killed processes leave unfinished goes; what somebody still writes, and what nobody here wrote, stays."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from socket import gethostname

import pytest

from atelier import temp_paths
from atelier.files import atomic_file, atomic_folder

WRITING = """
import sys, time
from pathlib import Path
from atelier.files import atomic_file, atomic_folder
with atomic_file(Path(sys.argv[1]) / "lora.safetensors") as part, atomic_folder(Path(sys.argv[1]) / "model") as folder:
    part.write_bytes(b"half of it")
    (folder / "unet").mkdir()
    (folder / "unet" / "half.safetensors").write_bytes(b"half of it")
    print("writing", flush=True)
    time.sleep(600)
"""
ROOT = Path(__file__).parents[1]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of writing a file and a folder to `tmp_path`."""
    process = subprocess.Popen([sys.executable, "-c", WRITING, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE,
                               text=True)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture(autouse=True)
def a_new_process() -> None:
    """Folders are looked through once in a process: as if none had been yet."""
    temp_paths._sweep.cache_clear()


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def write(folder: Path, name: str = "other.txt") -> None:
    with atomic_file(folder / name) as part:
        part.write_text("whole")


def test_what_a_killed_process_left_goes_with_the_next_write(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    assert len(parts(tmp_path)) == 2
    writer.kill()
    writer.wait()
    write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_what_a_living_process_writes_stays(writer: subprocess.Popen[str], tmp_path: Path) -> None:
    before = parts(tmp_path)
    write(tmp_path)
    assert parts(tmp_path) == before


def test_what_this_process_writes_stays(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "model") as folder, atomic_file(tmp_path / "lora.safetensors") as part:
        part.touch()
        temp_paths._sweep.cache_clear()
        write(tmp_path)
        assert folder.is_dir() and part.is_file()
    assert parts(tmp_path) == []


def renamed(part: Path, pattern: str, by: str) -> Path:
    name, count = re.subn(pattern, by, part.name)
    assert count == 1 and name != part.name
    return part.rename(part.with_name(name))


def test_the_same_process_number_is_not_the_same_process(tmp_path: Path) -> None:
    """In a container, each start of the host may be process 1."""
    part = temp_paths.temp_path(tmp_path / "lora.safetensors")
    part.touch()
    renamed(part, r"-[0-9a-f]{6}-(\d+\.part)$", r"-000000-\1")
    temp_paths._sweep.cache_clear()
    write(tmp_path)
    assert parts(tmp_path) == []


@pytest.mark.parametrize("whose", ["another machine's", "another process's of that number"])
def test_what_may_be_someone_elses_stays_for_a_day(whose: str, writer: subprocess.Popen[str], tmp_path: Path) -> None:
    folder = tmp_path / "models"
    part = temp_paths.temp_path(folder / "model")
    (part / "unet").mkdir(parents=True)
    (part / "unet" / "half").touch()
    if whose == "another machine's":
        another = f"{int(temp_paths._machine(), 16) ^ 1:04x}"
        part = renamed(part, r"-[0-9a-f]{4}-(\d+-[0-9a-f]{6}-\d+\.part)$", rf"-{another}-\1")
    else:
        part = renamed(part, r"-\d+-([0-9a-f]{6}-\d+\.part)$", rf"-{writer.pid}-\1")
    yesterday = time.time() - temp_paths.ABANDONED_AFTER - 60
    for path in (part, part / "unet"):
        os.utime(path, (yesterday, yesterday))
    write(folder)
    assert part.is_dir(), "a file in it is new"
    os.utime(part / "unet" / "half", (yesterday, yesterday))
    temp_paths._sweep.cache_clear()
    write(folder)
    assert not part.exists()


def test_two_containers_of_one_name_are_two_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `docker run --network host`: the number of a process in one means another in the other, or none."""
    def kept_apart(container: str) -> str:
        monkeypatch.setattr(Path, "readlink", lambda path: Path(container))
        return temp_paths._process_namespace()

    assert kept_apart("pid:[4026531836]") != kept_apart("pid:[4026532456]") == kept_apart("pid:[4026532456]")


def test_a_system_without_containers_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path) -> Path:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "readlink", missing)
    assert temp_paths._process_namespace() == f"{gethostname()} "


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_cannot_be_removed_hinders_no_write(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where a scanner or another program may hold it."""
    part = temp_paths.temp_path(tmp_path / "model")
    if kind == "file":
        part.touch()
    else:
        part.mkdir()
    part = renamed(part, r"-[0-9a-f]{6}-(\d+\.part)$", r"-000000-\1")

    def held(path: Path, *rest: object, **more: object) -> None:
        raise PermissionError(path)

    temp_paths._sweep.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(temp_paths.shutil, "rmtree", held)
        patched.setattr(Path, "unlink", held)
        with atomic_file(tmp_path / "other.txt") as new:
            new.write_text("whole")
    assert part.exists() and (tmp_path / "other.txt").read_text() == "whole"


@pytest.mark.parametrize(("name", "beside_it", "goes"), [
    ("model", "model", True), ("model", "nothing", False), ("model", "model-2", False),
    ("a name of thirty characters...", "a name of thirty characters...", True)])
def test_a_folder_moved_aside_goes_only_when_its_successor_is_there(name: str, beside_it: str, goes: bool,
                                                                    tmp_path: Path) -> None:
    aside = temp_paths.temp_path(tmp_path / name, temp_paths.ASIDE_SUFFIX)
    aside.mkdir()
    aside = renamed(aside, r"-[0-9a-f]{6}-(\d+\.old)$", r"-000000-\1")
    (tmp_path / beside_it).mkdir()
    temp_paths._sweep.cache_clear()
    write(tmp_path)
    assert aside.exists() is not goes


def test_files_with_other_names_are_nobodys_business(tmp_path: Path) -> None:
    theirs = [".download.part", "a-1234-99999999-abcdef-1.part", ".a-1234-99999999-abcdef-1.txt", "query.part"]
    for name in theirs:
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*theirs, "other.txt"}
