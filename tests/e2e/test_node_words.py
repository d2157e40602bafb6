"""What the host hands to the editor about the nodes: help, texts, aliases; and that saved workflows stay valid."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from kit.host import Host

from tools import record_nodes
from tools.comfyui import PACK

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def nodes(host: Host) -> dict[str, Any]:
    ours = {name: info for name, info in host.get_json("/object_info").items() if name.startswith("Atelier")}
    assert ours
    return ours


def test_nodes_are_as_recorded(nodes: dict[str, Any]) -> None:
    now, record = record_nodes.shapes(nodes), record_nodes.recorded()
    changed = {name: {"recorded": node, "now": now.get(name)} for name, node in record.items() if now.get(name) != node}
    assert not changed, f"saved workflows would break; see tools/record_nodes.py: {changed}"
    new = sorted(now.keys() - record.keys())
    assert not new, f"{new} are not recorded yet: python tools/record_nodes.py"


def test_the_record_notices_every_kind_of_change(nodes: dict[str, Any]) -> None:
    info = nodes["AtelierTrainLora"]
    before = record_nodes.shape(info)
    assert record_nodes.from_text(record_nodes.text_of({"A": before})) == {"A": before}

    def changed(change: Any) -> bool:
        other = copy.deepcopy(info)
        change(other)
        return record_nodes.shape(other) != before

    def rename(other: dict[str, Any]) -> None:
        other["input"]["required"]["title"] = other["input"]["required"].pop("name")
        other["input_order"]["required"] = list(other["input"]["required"])

    assert changed(rename)
    assert changed(lambda other: other["input_order"]["required"].reverse())
    assert changed(lambda other: other["input"]["required"].update(seed=["FLOAT", {}]))
    assert changed(lambda other: other["output"].reverse())
    assert not changed(lambda other: other["input"]["required"]["seed"][1].update(tooltip="New words."))


def test_every_help_page_is_where_the_editor_looks(host: Host, nodes: dict[str, Any]) -> None:
    for name, info in nodes.items():
        assert info["python_module"] == f"custom_nodes.{PACK}"
        served = host.get(f"/extensions/{PACK}/docs/{name}.md").decode()
        assert served == (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")


def test_every_node_can_be_found_by_other_words(nodes: dict[str, Any]) -> None:
    for name, info in nodes.items():
        if not info.get("dev_only"):
            words = info["search_aliases"]
            assert words and all(word == word.strip() and word for word in words), name


def test_the_host_has_the_texts_in_every_language(host: Host, nodes: dict[str, Any]) -> None:
    texts = host.get_json("/i18n")
    languages = {path.parent.name for path in (ROOT / "locales").glob("*/nodeDefs.json")}
    assert languages <= texts.keys()
    for language in languages:
        assert nodes.keys() <= texts[language]["nodeDefs"].keys()
    assert texts["zh"]["nodeDefs"]["AtelierTrainLora"]["display_name"] == "训练 LoRA（Atelier）"
    assert texts["zh"]["dataTypes"]["TRAINING_SET"] == "训练集"


def test_the_scripts_are_listed_for_the_editor(host: Host) -> None:
    listed = host.get_json("/extensions")
    assert f"/extensions/{PACK}/js/atelier.js" in listed
    assert b"atelier-panel" in host.get(f"/extensions/{PACK}/js/training/panel.css")
