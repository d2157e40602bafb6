"""What the README and the guides name exists, and what exists is named."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace

import pytest
from kit.checkpoints import write_sd1
from kit.pictures import write_pictures

from atelier.progress import Progress
from tools.workflows import TITLES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh.md").read_text(encoding="utf-8")
GUIDES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
          for path in (*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md"))}


def test_every_node_is_in_the_table() -> None:
    written = {name for path in (ROOT / "nodes").glob("*.py")
               for name in re.findall(r'node_id="(Atelier\w+)"', path.read_text(encoding="utf-8"))}
    named = set(re.findall(r"`(Atelier\w+)`", README))
    assert written
    assert named == written


@pytest.mark.parametrize("name", GUIDES)
def test_links_lead_somewhere(name: str) -> None:
    text, folder = GUIDES[name], (ROOT / name).parent
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text)
    for link in ("".join(found) for found in links):
        if "://" in link:
            continue
        file, _, heading = link.partition("#")
        target = (folder / file).resolve() if file else ROOT / name
        assert target.exists(), link
        assert not heading or heading in headings(target.read_text(encoding="utf-8")), link


def headings(text: str) -> set[str]:
    """Anchors of a page, as GitHub makes them of its headings."""
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-")
            for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


def test_every_guide_can_be_reached_from_the_tasks() -> None:
    linked = set(re.findall(r"\]\((?:docs/)?([\w-]+\.md)", GUIDES["docs/README.md"] + README))
    # `make card` writes the pages of single cards.
    assert linked >= {path.name for path in (ROOT / "docs").glob("*.md") if not path.name.startswith("card-")}


def test_templates_are_named_by_their_numbers_and_titles() -> None:
    titles = {title.partition(" - ")[0] for title in TITLES.values()}
    for name, text in GUIDES.items():
        for number, title in re.findall(r"\*\*(\d\d) ([^*]+)\*\*", text):
            assert f"{number} {title}" in titles, name


def test_every_make_target_and_verb_that_is_shown_exists() -> None:
    from atelier.shell.main import command_parser

    targets = re.findall(r"^    make (\w+)", README, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    helped = command_parser().format_help()
    verbs = {verb for text in GUIDES.values() for verb in re.findall(r"python -m atelier ([a-z][\w-]*)", text)}
    assert len(verbs) > 8
    assert all(re.search(rf"^\s+{verb}\b", helped, re.MULTILINE) for verb in verbs)


def test_the_table_of_cards_is_that_of_the_counted_memory() -> None:
    memory = rows(GUIDES["docs/memory.md"])
    counted = {row[0].replace(",", ""): row[5:] for row in memory if len(row) == 10}
    by_card = [row for row in memory if re.fullmatch(r"\d+ GB", row[0])]
    for column, model in enumerate(("SD 1.5 at 512", "SDXL at 1024"), 1):
        counted[model] = [chosen(row[column]) for row in by_card]
    shown = {row[0]: row[1:] for row in rows(README) if len(row) == 6 and row[0] != "model"}
    assert len(shown) == 5
    assert shown == {model: counted[model.removesuffix(" at 1024").replace(",", "") if "B, " in model else model]
                     for model in shown}
    # The same in Chinese: numbers alone, and what a cell says is the same wherever it is.
    chinese = [row for row in rows(CHINESE) if len(row) == 6 and "GB" not in row[1]]
    assert len(chinese) == len(shown)
    words: dict[str, str] = {}
    for (model, cells), row in zip(shown.items(), chinese, strict=True):
        assert re.findall(r"[\d.]+B?", model) == re.findall(r"[\d.]+B?", row[0])
        for cell, translated in zip(cells, row[1:], strict=True):
            assert sorted(re.findall(r"\d+", cell)) == sorted(re.findall(r"\d+", translated))
            kind = re.sub(r"\d+", "n", cell)
            assert words.setdefault(kind, re.sub(r"\d+", "n", translated)) == re.sub(r"\d+", "n", translated)


def rows(text: str) -> list[list[str]]:
    """The rows of all tables, without the lines below their heads."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
            if line.startswith("|") and not line.startswith("|--")]


def chosen(cell: str) -> str:
    """What the trainer does at batch 1, by a cell of the table of batch sizes."""
    plain, checkpointing, blocks = [*cell.split("; "), ""][:3]
    if "not at all" not in plain:
        return "as it is"
    if "not at all" not in checkpointing:
        return "checkpointing"
    found = re.search(r"with (\d+ of \d+ blocks)", blocks)
    return f"{found[1]} away" if found else "no"


def test_versions_and_packages_are_those_that_are_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = project["tool"]["comfy"]["requires-comfyui"].removeprefix(">=")
    python = project["project"]["requires-python"].removeprefix(">=")
    packages = [re.split(r"[>=;]", line)[0] for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()
                if ";" not in line]
    for text in (README, CHINESE):
        assert f"ComfyUI {needed}" in text and f"Python {python}" in text
        assert f"comfy node install {project['project']['name']}`" in text
        line, = re.findall(r"^`requirements.txt`.*$", text, re.MULTILINE)
        assert all(package in line for package in packages)


def test_the_chinese_readme_says_what_the_english_one_does() -> None:
    """The same parts in the same order, pictures, templates, guides and commands; only the node table is left out."""
    def parts(text: str) -> list[dict[str, list[str]]]:
        return [{"pictures": re.findall(r"docs/images/[\w.-]+", part),
                 "templates": re.findall(r"\*\*(\d\d .*?)\*\*", part),
                 "guides": sorted(set(re.findall(r"\((docs/[\w./-]+)", part))),
                 "commands": re.findall(r"^    (?!make)(\S.*?)(?:   .*)?$", re.sub("<.*?>", "", part), re.MULTILINE),
                 "python": re.findall(r"```python.*?```", part, re.DOTALL)}
                for part in re.split(r"^## ", text, flags=re.MULTILINE)]

    for ours, theirs in zip_longest(parts(README[:README.index("## Working on it")]), parts(CHINESE)):
        assert ours is not None and theirs is not None
        assert {**ours, "guides": []} == {**theirs, "guides": []}
        assert set(ours["guides"]) <= {*theirs["guides"], "docs/decisions/0001-architecture.md"}


def test_the_example_in_python_asks_for_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    """All but the training itself, which tests/train does in this way."""
    from atelier.train import run

    code, = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    write_sd1(tmp_path / "sd15.safetensors", "tiny")
    write_pictures(tmp_path / "photos", [(64, 64)] * 3)
    asked, signature = [], inspect.signature(run.train)
    assert "lora" in {field.name for field in fields(run.TrainReport)}
    monkeypatch.setattr(run, "train", lambda *given: asked.append(signature.bind(*given)) or SimpleNamespace(lora="a"))
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == "a\n"
    (name, model, pictures, request, paths, progress), = (bound.args for bound in asked)
    assert (name, model.family, len(pictures.samples), request.steps) == ("my-dog", "sd1", 3, 800)
    assert request.lora.rank == 8 and paths.loras == Path("loras") and isinstance(progress, Progress)


def test_contributing_names_what_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`(?:python )?((?:[\w.-]+/)+[\w.-]*)`", text)) | set(re.findall(r"\]\(([^)#]+)\)", text))
    created = {path for path in paths if path.startswith((".venv/", ".comfyui/"))}
    assert len(paths - created) > 20
    assert [path for path in sorted(paths - created) if not (ROOT / path).exists()] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in re.findall(r"make (\w+)", text))
