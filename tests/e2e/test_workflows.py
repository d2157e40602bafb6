"""The workflows that ship: both forms say the same, and fit the nodes."""

from __future__ import annotations

from typing import Any

import pytest
from kit.host import Host

from tools.workflows import FOLDER, TITLES, editor_form, read_api, text_of

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def nodes(host: Host) -> dict[str, Any]:
    return host.get_json("/object_info")


def test_every_file_has_its_counterpart() -> None:
    assert {path.stem for path in (FOLDER / "api").glob("*.json")} == set(TITLES)
    assert {path.stem for path in FOLDER.glob("*.json")} == set(TITLES.values())


@pytest.mark.parametrize("name", TITLES)
def test_the_editors_form_is_made_from_the_api_form(nodes: dict[str, Any], name: str) -> None:
    written = (FOLDER / f"{TITLES[name]}.json").read_text(encoding="utf-8")
    assert written == text_of(editor_form(read_api(name), nodes)), "run: python tools/workflows.py"


@pytest.mark.parametrize("name", TITLES)
def test_every_input_is_given_and_known(nodes: dict[str, Any], name: str) -> None:
    api = read_api(name)
    for number, node in api.items():
        wanted = nodes[node["class_type"]]["input"]
        known = wanted["required"].keys() | wanted.get("optional", {}).keys()
        assert node["inputs"].keys() <= known, number
        assert wanted["required"].keys() <= node["inputs"].keys(), number
        for key, value in node["inputs"].items():
            spec = wanted["required"].get(key) or wanted["optional"][key]
            if isinstance(value, list):
                source = nodes[api[value[0]]["class_type"]]["output"][value[1]]
                assert source == spec[0] or spec[0] == "*", f"{number}.{key}"
            elif spec[0] == "COMBO" or isinstance(spec[0], list):
                options = spec[1]["options"] if spec[0] == "COMBO" else spec[0]
                assert value in options or key == "checkpoint", f"{number}.{key}"


def test_the_host_offers_them_as_templates(host: Host) -> None:
    assert sorted(host.get_json("/workflow_templates")["ComfyUI-Atelier"]) == sorted(TITLES.values())
