"""Folders of pictures: their list, and files that the browser adds."""

from __future__ import annotations

import asyncio
import json
from io import BytesIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from kit.pack import pack_module
from kit.pictures import write_pictures

pytestmark = pytest.mark.host


@pytest.fixture
def home(pack: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An input folder of its own, and an empty list of allowed folders."""
    import folder_paths

    (tmp_path / "input").mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    return tmp_path / "input"


@pytest.fixture
def folders(pack: ModuleType) -> Any:
    return pack_module(pack, "nodes.host.input_folders")


def test_folders_with_pictures_are_listed_by_the_names_that_the_widget_takes(pack: ModuleType, home: Path, folders: Any
                                                                             ) -> None:
    for name, count in (("rex", 3), ("a b/5_inner", 2), (".hidden", 1), ("a b/x/y/z", 1)):
        write_pictures(home / name, [(8, 8)] * count)
    write_pictures(home, [(8, 8)])
    (home / "texts").mkdir()
    elsewhere = home.parent / "elsewhere"
    write_pictures(elsewhere, [(8, 8)])
    allowed = home.parent / "user" / "atelier" / "allowed.toml"
    allowed.parent.mkdir(parents=True)
    allowed.write_text(f"folders = [{json.dumps(elsewhere.as_posix())}]", encoding="utf-8")
    found = {folder.name: folder.pictures for folder in folders.picture_folders()}
    assert found == {"rex": 3, "a b/5_inner": 2, elsewhere.as_posix(): 1}, "4 levels down is too deep"
    take = pack_module(pack, "nodes.host.folders").input_folder
    assert all(take(name).is_dir() for name in found)


def test_a_file_is_added_once_and_never_replaced(pack: ModuleType, home: Path, folders: Any) -> None:
    error = pack_module(pack, "atelier.errors").AtelierError
    assert folders.add_file(" rex/new ", "a.PNG", b"one") == home / "rex" / "new" / "a.PNG"
    assert folders.add_file("rex/new", "a.PNG", b"one").read_bytes() == b"one"
    folders.add_file("rex/new", "a.txt", b"a dog")
    with pytest.raises(error, match=r"rex/new has another file called a\.PNG"):
        folders.add_file("rex/new", "a.PNG", b"two")
    assert {path.name: path.read_bytes() for path in (home / "rex" / "new").iterdir()} == {
        "a.PNG": b"one", "a.txt": b"a dog"}


def test_a_file_is_added_to_a_folder_that_the_owner_lists(pack: ModuleType, home: Path, folders: Any) -> None:
    listed = home.parent / "listed"
    (home.parent / "user" / "atelier").mkdir(parents=True)
    (home.parent / "user" / "atelier" / "allowed.toml").write_text(f"folders = [{json.dumps(listed.as_posix())}]",
                                                                   encoding="utf-8")
    assert folders.add_file(f"{listed}/rex/", "a.png", b"one") == listed / "rex" / "a.png"
    assert (listed / "rex" / "a.png").read_bytes() == b"one"
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match="A graph may not write to"):
        folders.add_file(f"{listed}/../rex", "a.png", b"one")


@pytest.mark.parametrize(("folder", "name", "said"), [
    ("", "a.png", "no name for the folder"), ("../out", "a.png", "cannot be a file name"),
    ("/etc", "a.png", "A graph may not write to"), ("con", "a.png", "cannot be a file name"),
    ("rex", "../a.png", "cannot be a file name"), ("rex", "sub/a.png", "is a path"),
    ("rex", "a\0.png", "cannot be a file name"), ("/a\0b", "a.png", "null character"),
    ("rex", "a.html", "neither a picture nor a caption"), ("rex", "a.py", "neither"), ("rex", "png", "neither"),
    ("link", "a.png", "A graph may not write to"),
])
def test_nothing_is_added_elsewhere_or_of_another_kind(pack: ModuleType, home: Path, folders: Any, folder: str,
                                                       name: str, said: str) -> None:
    outside = home.parent / "outside"
    outside.mkdir()
    (home / "link").symlink_to(outside, target_is_directory=True)
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match=said):
        folders.add_file(folder, name, b"content")
    assert not [path for path in home.parent.rglob("*") if path.is_file()]


def test_the_routes_answer_with_what_was_done_or_why_not(pack: ModuleType, home: Path) -> None:
    from aiohttp import web

    routes = pack_module(pack, "nodes.panel.folder_routes")

    def post(folder: str, name: str) -> tuple[int, dict[str, Any]]:
        async def form() -> dict[str, Any]:
            return {"file": web.FileField("file", name, BytesIO(b"x"), "image/png", {})} if name else {"file": "text"}
        answer = asyncio.run(routes._post_file(SimpleNamespace(query={"folder": folder}, post=form)))
        return answer.status, json.loads(answer.text)

    assert post("rex", "a.png") == (200, {"file": "a.png"})
    assert post("rex", "a.exe")[0] == 400 and "neither" in post("rex", "a.exe")[1]["error"]
    assert post("rex", "")[0] == 400
    listed = json.loads(asyncio.run(routes._get_folders(None)).text)
    assert listed == {"folders": [{"name": "rex", "pictures": 1}]}


def test_a_list_of_folders_that_cannot_be_read_is_told_to_the_browser(pack: ModuleType, home: Path) -> None:
    allowed = home.parent / "user" / "atelier" / "allowed.toml"
    allowed.parent.mkdir(parents=True)
    allowed.write_text("folders = [", encoding="utf-8")
    answer = asyncio.run(pack_module(pack, "nodes.panel.folder_routes")._get_folders(None))
    assert answer.status == 400 and "allowed.toml" in json.loads(answer.text)["error"]


def test_only_so_many_folders_are_listed_nearest_first(pack: ModuleType, home: Path, folders: Any,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST", 2)
    for name in ("a/below", "b", "c"):
        write_pictures(home / name, [(8, 8)])
    assert [folder.name for folder in folders.picture_folders()] == ["b", "c"]
