"""What ComfyUI's registry demands of a pack, and what it recommends.

Sources, read in November 2026: https://docs.comfy.org/registry/specifications (names, versions, licence, addresses,
icon, banner, classifiers, versions of ComfyUI), https://docs.comfy.org/registry/standards (no eval or exec, no
installation of packages while running), https://docs.comfy.org/registry/publishing (.comfyignore, the workflow).
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import atelier
from tools.archive import shipped
from tools.emblem import BANNER, ICON

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent.parent
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = SETTINGS["project"]
COMFY: dict[str, Any] = SETTINGS["tool"]["comfy"]
PLACEHOLDER = "OWNER"
"""Stands for the account in the repository's address."""
SYSTEMS = {"OS Independent", "Microsoft :: Windows", "POSIX :: Linux", "MacOS"}
ACCELERATORS = {"GPU :: NVIDIA CUDA", "GPU :: AMD ROCm", "GPU :: Intel Arc", "NPU :: Huawei Ascend",
                "GPU :: Apple Metal"}
LARGEST_ARCHIVE = 20_000_000

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is published is what Git tracks")


def test_name_version_and_licence_have_the_registrys_form() -> None:
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_.][A-Za-z0-9]+)*", PROJECT["name"])
    assert len(PROJECT["name"]) < 100 and "comfyui" not in PROJECT["name"].lower()
    assert re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", PROJECT["version"])
    assert (ROOT / PROJECT["license"]["file"]).is_file()
    assert PROJECT["description"] and PROJECT["requires-python"]
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", COMFY["PublisherId"])
    assert COMFY["DisplayName"]


def test_the_version_is_the_librarys_and_the_newest_of_the_changes() -> None:
    newest = re.search(r"^## (\S+) \((\d{4}-\d{2}-\d{2})\)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert newest is not None
    assert PROJECT["version"] == atelier.__version__ == newest[1]


def test_every_address_is_below_the_repositorys() -> None:
    repository = PROJECT["urls"]["Repository"]
    assert re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", repository)
    assert {"Documentation", "Bug Tracker"} <= PROJECT["urls"].keys()
    assert all(url.startswith(repository) for url in PROJECT["urls"].values())
    files = repository.replace("github.com", "raw.githubusercontent.com") + "/main/"
    for key, path in (("Icon", ICON), ("Banner", BANNER)):
        assert COMFY[key] == files + path.relative_to(ROOT).as_posix()


@needs_git
def test_the_placeholder_stands_in_one_file() -> None:
    """`tests` and the workflow that refuses it name it too."""
    holding = {name for name in shipped() if name.endswith((".py", ".md", ".toml", ".json", ".js"))
               and re.search(rf"github(usercontent)?\.com/{PLACEHOLDER}\b", (ROOT / name).read_text("utf-8"))}
    assert holding <= {"pyproject.toml"}


def test_the_icon_is_a_square_of_at_most_400_pixels_and_the_banner_21_to_9() -> None:
    with Image.open(ICON) as icon, Image.open(BANNER) as banner:
        assert icon.width == icon.height <= 400
        assert banner.width * 9 == banner.height * 21


def test_classifiers_name_systems_and_accelerators_that_the_registry_knows() -> None:
    found = {kind: {line.removeprefix(f"{kind} :: ") for line in PROJECT["classifiers"] if line.startswith(kind)}
             for kind in ("Operating System", "Environment")}
    assert found["Operating System"] and found["Operating System"] <= SYSTEMS
    assert found["Environment"] and found["Environment"] <= ACCELERATORS


def test_the_versions_of_comfyui_are_a_range() -> None:
    assert all(re.fullmatch(r"(<|>|<=|>=|~=|<>|!=)\d+\.\d+\.\d+", part.strip())
               for part in COMFY["requires-comfyui"].split(","))


@needs_git
def test_the_archive_has_what_is_run_and_nothing_else() -> None:
    files = shipped()
    top = {name.split("/")[0] for name in files}
    assert {"__init__.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE", "atelier", "nodes", "web",
            "locales", "workflows", "prompt_examples"} <= top
    assert not {"tests", "benchmarks", ".github", ".ci", "Makefile"} & top
    assert [name for name in files if name.startswith("tools/")] == ["tools/headless.py"]
    assert not [name for name in files if name.startswith(("docs/images", "docs/decisions"))]
    assert sum((ROOT / name).stat().st_size for name in files) < LARGEST_ARCHIVE


@needs_git
def test_no_shipped_code_evaluates_text_starts_processes_or_installs() -> None:
    banned = {"eval", "exec", "subprocess", "os.system", "os.popen"}
    found = []
    for name in (name for name in shipped() if name.endswith(".py")):
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            used = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            imported = {alias.name for alias in node.names} if isinstance(node, ast.Import) else \
                {node.module} if isinstance(node, ast.ImportFrom) else set()
            if used in banned or imported & banned:
                found.append(f"{name}:{getattr(node, 'lineno', 0)}")
    assert found == []


def test_the_publish_workflow_refuses_the_placeholder_and_takes_its_key_from_a_secret() -> None:
    workflow = (ROOT / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8")
    assert PLACEHOLDER in workflow and "secrets.REGISTRY_ACCESS_TOKEN" in workflow
    assert "Comfy-Org/publish-node-action@v1" in workflow
