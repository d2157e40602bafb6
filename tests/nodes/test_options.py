"""The option nodes offer exactly what the library's dataclasses hold, with their defaults."""

from __future__ import annotations

from dataclasses import fields
from types import ModuleType
from typing import Any

import pytest
from kit.pack import node_classes, pack_module

pytestmark = pytest.mark.host


@pytest.mark.parametrize(("node_id", "dataclass"), [("AtelierLoraConfig", "LoraConfig"),
                                                    ("AtelierTrainingOptions", "TrainingOptions")])
def test_widgets_are_the_fields(pack: ModuleType, node_id: str, dataclass: str) -> None:
    node: Any = node_classes(pack)[node_id]
    kind = getattr(pack_module(pack, "atelier.train.config"), dataclass)
    inputs = node.GET_SCHEMA().inputs
    assert {i.id for i in inputs} == {f.name for f in fields(kind)}
    assert node.execute(**{i.id: i.default for i in inputs})[0] == kind()


def test_every_choice_on_offer_is_accepted(pack: ModuleType) -> None:
    for node_id in ("AtelierLoraConfig", "AtelierTrainingOptions"):
        node: Any = node_classes(pack)[node_id]
        inputs = node.GET_SCHEMA().inputs
        defaults = {i.id: i.default for i in inputs} | ({"patience": 0} if node_id.endswith("Options") else {})
        choices = [(i.id, option) for i in inputs if i.io_type == "COMBO" for option in i.options]
        assert choices
        for name, option in choices:
            assert getattr(node.execute(**{**defaults, name: option})[0], name) == option


def test_a_wrong_value_is_named(pack: ModuleType) -> None:
    node: Any = node_classes(pack)["AtelierTrainingOptions"]
    values = {i.id: i.default for i in node.GET_SCHEMA().inputs}
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match="monitor and patience"):
        node.execute(**{**values, "monitor": "off"})
