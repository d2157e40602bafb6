"""The shipped workflows: both formats agree, and fit the nodes."""

from __future__ import annotations

import time
import urllib.error
from typing import Any
from urllib.parse import quote

import pytest
from kit.fake_llm import FakeLlm
from kit.graphs import Graph
from kit.host import Host
from kit.named_files import NAMED, named_files
from PIL import Image

from tools.thumbnails import MOST_BYTES, suited
from tools.workflows import FOLDER, MATCHED, TITLES, WIDGETS, editor_form, read_api, specs, text_of

pytestmark = pytest.mark.host

ANY = {"*", MATCHED}
"""Types that take or give whatever is linked."""


@pytest.fixture(scope="module")
def nodes(host: Host) -> dict[str, Any]:
    return host.get_json("/object_info")


def test_every_file_has_its_counterpart() -> None:
    assert {path.stem for path in (FOLDER / "api").glob("*.json")} == set(TITLES)
    assert {path.stem for path in FOLDER.glob("*.json")} == set(TITLES.values())


@pytest.mark.parametrize("name", TITLES)
def test_the_editors_graph_is_made_from_the_api_graph(nodes: dict[str, Any], name: str) -> None:
    written = (FOLDER / f"{TITLES[name]}.json").read_text(encoding="utf-8")
    assert written == text_of(editor_form(read_api(name), nodes)), "run: python tools/workflows.py"


@pytest.mark.parametrize("name", TITLES)
def test_every_input_is_given_and_known(nodes: dict[str, Any], name: str) -> None:
    api = read_api(name)
    for number, node in api.items():
        listed = list(specs(nodes[node["class_type"]], node["inputs"]))
        known = {key: spec for key, spec, _ in listed}
        assert node["inputs"].keys() <= known.keys(), number
        wanted = {key for key, spec, optional in listed if not optional or is_widget(spec)}
        assert wanted <= node["inputs"].keys(), number
        for key, value in node["inputs"].items():
            spec = known[key]
            if isinstance(value, list):
                source = nodes[api[value[0]]["class_type"]]["output"][value[1]]
                kinds = set(source.split(",")) & set(spec[0].split(","))
                assert kinds or {source, spec[0]} & ANY, f"{number}.{key}"
            elif spec[0] == "COMBO" or isinstance(spec[0], list):
                options = spec[1]["options"] if spec[0] == "COMBO" else spec[0]
                assert value in options or key in NAMED.get(node["class_type"], ()), f"{number}.{key}"


@pytest.mark.parametrize("name", TITLES)
def test_a_note_says_what_to_change_first(name: str) -> None:
    notes = [node["_meta"]["note"] for node in read_api(name).values() if "note" in node["_meta"]]
    assert any(note.startswith("**") for note in notes)


def is_widget(spec: list[Any]) -> bool:
    return (isinstance(spec[0], list) or spec[0] in WIDGETS) and not (len(spec) > 1 and spec[1].get("forceInput"))


def test_the_host_offers_them_as_templates(host: Host) -> None:
    assert sorted(host.get_json("/workflow_templates")["ComfyUI-Atelier"]) == sorted(TITLES.values())
    for title in TITLES.values():
        # The host lists the templates of every folder it knows, and serves those of the first.
        served = host.get(f"/api/workflow_templates/ComfyUI-Atelier/{quote(title)}.json")
        assert served.decode() == (FOLDER / f"{title}.json").read_text(encoding="utf-8")


def test_the_host_accepts_every_api_graph(host: Host) -> None:
    """As it ships, what it names being there. A job that waits for an answer holds the queue up, so none is run."""
    with FakeLlm() as fake, named_files(host.base):
        fake.say(delay=600)
        host.post("/prompt", {"prompt": Graph(
            llm=("AtelierLLM", {"endpoint": "custom", "base_url": fake.base_url, "model": "m"}),
            write=("AtelierWritePrompt", {"llm": ["llm", 0], "idea": "held up"})).fill(host)})
        try:
            for name in TITLES:
                assert refusal(host, read_api(name)) is None, name
            broken = read_api("cfg_sweep")
            broken["1"]["inputs"]["ckpt_name"] = "not there.safetensors"
            assert "not there.safetensors" in str(refusal(host, broken)), "what this test relies on is blind"
        finally:
            host.post("/queue", {"clear": True})
            while any(host.get_json("/queue").values()):
                host.interrupt()
                time.sleep(0.2)


def refusal(host: Host, graph: dict[str, Any]) -> Any:
    """What the host finds wrong with a graph before it is run."""
    try:
        return host.post("/prompt", {"prompt": graph})["node_errors"] or None
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_thumbnails_are_small_served_and_of_workflows_that_make_them(host: Host) -> None:
    files = sorted(FOLDER.glob("*.jpg"))
    names = {title: name for name, title in TITLES.items()}
    assert {file.stem for file in files} <= names.keys()
    for file in files:
        assert suited(names[file.stem]), f"{file.name} cannot have been made by running it"
        assert file.stat().st_size <= MOST_BYTES
        with Image.open(file) as picture:
            assert picture.format == "JPEG" and max(picture.size) <= 384
        assert host.get(f"/api/workflow_templates/ComfyUI-Atelier/{quote(file.name)}") == file.read_bytes()
    assert sum(file.stat().st_size for file in files) < 1_000_000
