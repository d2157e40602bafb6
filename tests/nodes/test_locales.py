"""The English texts for translators are those of the nodes."""

from __future__ import annotations

import json
from types import ModuleType

import pytest
from kit.pack import node_classes

from tools.locales import ENGLISH, NAMES, english, english_names

pytestmark = pytest.mark.host


def test_english_texts_are_those_of_the_nodes(pack: ModuleType) -> None:
    assert ENGLISH.read_text(encoding="utf-8") == english(node_classes(pack)), "run: python tools/locales.py"
    assert NAMES.read_text(encoding="utf-8") == english_names(node_classes(pack)), "run: python tools/locales.py"


def test_translations_name_only_existing_nodes_and_inputs() -> None:
    known = json.loads(ENGLISH.read_text(encoding="utf-8"))
    for path in ENGLISH.parent.parent.glob("*/nodeDefs.json"):
        for node, texts in json.loads(path.read_text(encoding="utf-8")).items():
            assert texts.get("inputs", {}).keys() <= known[node]["inputs"].keys(), f"{path}: {node}"


def test_no_socket_has_a_label_that_its_translation_would_not_replace(pack: ModuleType) -> None:
    for name, node in node_classes(pack).items():
        assert not [socket.id for socket in node.GET_SCHEMA().inputs if socket.display_name], name
