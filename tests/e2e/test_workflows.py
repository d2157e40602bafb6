"""The shipped workflows: both formats agree, and fit the nodes."""

from __future__ import annotations

import json
import re
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

from tools.measure_nodes import read_heights
from tools.model_files import ADDRESSES, FOLDERS, OWN
from tools.thumbnails import MOST_BYTES
from tools.workflow_form import MATCHED, WIDGETS, editor_form, specs
from tools.workflows import FOLDER, QUEUE_ONLY, TITLES, read_api, text_of

pytestmark = pytest.mark.host

WITHOUT_TEMPLATE = {
    "AtelierComparisonGate", "AtelierComparisonPicture", "AtelierComparisonResult",  # Compare Models puts these in
}
"""Nodes of the pack that no template uses."""
ANY = {"*", MATCHED}
"""Types that take or give whatever is linked."""


@pytest.fixture(scope="module")
def nodes(host: Host) -> dict[str, Any]:
    return host.get_json("/object_info")


def test_every_file_has_its_counterpart() -> None:
    assert {path.stem for path in (FOLDER / "api").glob("*.json")} == {*TITLES, *QUEUE_ONLY}
    assert {path.stem for path in FOLDER.glob("*.json")} == set(TITLES.values())


@pytest.mark.parametrize("name", TITLES)
def test_the_editors_graph_is_made_from_the_api_graph(nodes: dict[str, Any], name: str) -> None:
    written = (FOLDER / f"{TITLES[name]}.json").read_text(encoding="utf-8")
    heights = read_heights()[name]
    assert written == text_of(editor_form(read_api(name), nodes, heights)), "run: python tools/workflows.py"


def test_titles_tell_their_order_and_what_they_do_and_name_the_api_files() -> None:
    numbers = [int(title.split()[0]) for title in TITLES.values()]
    assert numbers == sorted(set(numbers))
    for name, title in TITLES.items():
        short, description = title.split(" ", 1)[1].split(" - ")
        assert len(short) <= 40 and len(description) >= 20, title
        words = re.findall("[a-z0-9]+", short.lower().replace("-tune", "tune"))
        assert name == "_".join(words), title


@pytest.mark.parametrize("name", TITLES)
def test_a_template_has_nodes_of_the_pack_which_name_it(name: str) -> None:
    version = re.search(r'^version = "(.+)"', (FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert version
    workflow = json.loads((FOLDER / f"{TITLES[name]}.json").read_text(encoding="utf-8"))
    own = [node["properties"] for node in workflow["nodes"] if node["type"].startswith("Atelier")]
    assert own
    assert all((each["cnr_id"], each["ver"]) == ("atelier", version[1]) for each in own)


def test_every_other_node_is_in_a_template(nodes: dict[str, Any]) -> None:
    used = {node["class_type"] for name in TITLES for node in read_api(name).values()}
    assert {name for name in nodes if name.startswith("Atelier")} - used <= WITHOUT_TEMPLATE


@pytest.mark.parametrize("name", TITLES)
def test_every_model_file_that_a_template_names_is_offered_for_download(name: str) -> None:
    workflow = json.loads((FOLDER / f"{TITLES[name]}.json").read_text(encoding="utf-8"))
    by_id = {node["id"]: node for node in workflow["nodes"]}
    for number, node in read_api(name).items():
        widgets = FOLDERS.get(node["class_type"], {})
        named = {node["inputs"][widget]: folder for widget, folder in widgets.items()
                 if isinstance(node["inputs"][widget], str) and node["inputs"][widget] not in {"none", *OWN}}
        offered = by_id[int(number)]["properties"].get("models", [])
        assert {model["name"]: model["directory"] for model in offered} == named, number
        for model in offered:
            assert model["url"].startswith("https://") and model["url"].endswith(f"/{model['name']}")


def test_model_files_have_one_address_and_all_are_used() -> None:
    used = {model["name"] for title in TITLES.values()
            for node in json.loads((FOLDER / f"{title}.json").read_text(encoding="utf-8"))["nodes"]
            for model in node["properties"].get("models", ())}
    assert used == set(ADDRESSES)


@pytest.mark.parametrize("name", [*TITLES, *QUEUE_ONLY])
def test_every_input_is_given_and_known(nodes: dict[str, Any], name: str) -> None:
    api = read_api(name)
    for number, node in api.items():
        listed = list(specs(nodes[node["class_type"]], node["inputs"]))
        known = {key: spec for key, spec, _ in listed}
        assert node["inputs"].keys() <= known.keys(), number
        needed = {key for key, spec, optional in listed if not optional or is_widget(spec)}
        assert needed <= node["inputs"].keys(), number
        for key, value in node["inputs"].items():
            spec = known[key]
            if isinstance(value, list):
                source = nodes[api[value[0]]["class_type"]]["output"][value[1]]
                wanted = "COMBO" if isinstance(spec[0], list) else spec[0]
                kinds = set(source.split(",")) & set(wanted.split(","))
                assert kinds or {source, wanted} & ANY, f"{number}.{key}"
            elif spec[0] == "COMBO" or isinstance(spec[0], list):
                options = spec[1]["options"] if spec[0] == "COMBO" else spec[0]
                assert value in options or key in NAMED.get(node["class_type"], ()), f"{number}.{key}"


@pytest.mark.parametrize("name", [*TITLES, *QUEUE_ONLY])
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
            for name in (*TITLES, *QUEUE_ONLY):
                assert refusal(host, read_api(name)) is None, name
            broken = read_api("guidance_sweep")
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


def test_every_template_has_a_small_thumbnail_that_is_served(host: Host) -> None:
    files = sorted(FOLDER.glob("*.jpg"))
    assert {file.stem for file in files} == set(TITLES.values())
    for file in files:
        assert file.stat().st_size <= MOST_BYTES
        with Image.open(file) as picture:
            assert picture.format == "JPEG" and max(picture.size) <= 384
        assert host.get(f"/api/workflow_templates/ComfyUI-Atelier/{quote(file.name)}") == file.read_bytes()
    assert sum(file.stat().st_size for file in files) < 1_000_000
