"""Add Prompt Example: what is said of the set, and names that no set can have."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


def test_the_node_tells_how_many_examples_the_set_holds(nodes: dict[str, Any], models: Path) -> None:
    def add(positive: str) -> tuple[str, str]:
        done = nodes["AtelierAddPromptExample"].execute(positive=positive, name="mine", form="tags")
        return done.result[0], done.ui["text"][0]

    assert add("a fox, snow") == ("mine", "mine: 1 example, tags")
    assert add("a hen, straw") == ("mine", "mine: 2 examples, tags")
    assert add("a hen, straw") == ("mine", "mine: 2 examples, tags"), "it was there already"
    assert (models / "user" / "atelier" / "examples" / "mine.toml").is_file()


@pytest.mark.parametrize(("name", "said"), [("none", "stands for no examples"), ("../mine", "cannot be a file name")])
def test_a_name_that_no_set_can_have_is_refused_before_and_in_the_run(nodes: dict[str, Any], pack: ModuleType,
                                                                      models: Path, name: str, said: str) -> None:
    node = nodes["AtelierAddPromptExample"]
    assert said in node.validate_inputs(name=name)
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match=said):
        node.execute(positive="a fox", name=name, form="tags")
    assert node.validate_inputs(name="mine") is True
