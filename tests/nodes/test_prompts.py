"""Write Prompt, Random Art Prompts, Prompt List and Weighted Prompt, called as the host calls them."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.fake_llm import GOOD, FakeLlm, refusal
from kit.node_calls import run_node
from kit.pack import pack_module

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def server() -> Iterator[FakeLlm]:
    with FakeLlm() as fake:
        yield fake


@pytest.fixture
def fake(server: FakeLlm, models: object) -> FakeLlm:
    return server.forget()


@pytest.fixture
def llm(pack: ModuleType, fake: FakeLlm) -> Any:
    return pack_module(pack, "atelier.prompts.endpoints").LanguageModel(base_url=fake.base_url, model="fake-model")


def test_an_error_stops_the_graph_unless_the_offline_writer_was_chosen(nodes: dict[str, Any], fake: FakeLlm, llm: Any
                                                                       ) -> None:
    fake.refuses = lambda body: refusal("wrong key", 401)
    for node, inputs in (("AtelierWritePrompt", {"idea": "a cat"}), ("AtelierRandomArtPrompts", {"count": 2})):
        for choice in ({}, {"on_error": "raise"}):
            with pytest.raises(Exception, match="answered 401: wrong key"):
                run_node(nodes[node], llm=llm, **inputs, **choice)
        first, *_ = run_node(nodes[node], llm=llm, on_error="offline", **inputs)
        assert first.startswith("a cat, ") if node == "AtelierWritePrompt" else len(first) == 2
    fake.forget()
    assert run_node(nodes["AtelierWritePrompt"], idea="a cat", llm=llm, on_error="offline") == tuple(GOOD.values())


def test_art_categories_are_taken_in_the_plural(nodes: dict[str, Any], models: object) -> None:
    node = nodes["AtelierRandomArtPrompts"]
    assert run_node(node, count=4, categories="Animals, abstract art") == run_node(node, count=4,
                                                                                   categories="animal, abstract")
    with pytest.raises(Exception, match="categories holds 'dogs'"):
        run_node(node, categories="animals, dogs")


@pytest.mark.parametrize(("node", "names"), [
    ("AtelierWeightedPrompt", ["text"]), ("AtelierPromptList", ["text", "before", "after"]),
    ("AtelierWritePrompt", ["idea", "style", "subject", "colours"])])
def test_the_editor_resolves_choices_in_braces(nodes: dict[str, Any], node: str, names: list[str]) -> None:
    inputs = nodes[node].INPUT_TYPES()
    widgets = {**inputs["required"], **inputs.get("optional", {})}
    assert [widgets[name][1].get("dynamicPrompts") for name in names] == [True] * len(names)


def test_what_the_encoder_adds_to_the_conditioning_is_handed_on(nodes: dict[str, Any]) -> None:
    """Hooks, and what other packs put beside the embeddings of a prompt."""
    class Clip:
        def tokenize(self, text: str) -> dict[str, Any]:
            return {"l": [[(49406, 1.0), (320, 2.0), *[(49407, 1.0)] * 75]]}

        def encode_from_tokens(self, tokens: Any, **_: Any) -> dict[str, Any]:
            rows = len(tokens["l"])
            return {"cond": torch.ones(1, 77 * rows, 4), "pooled_output": torch.ones(1, 4), "hooks": "kept",
                    "attention_mask": "kept, too"}

    [[embeds, extra]], = run_node(nodes["AtelierWeightedPrompt"], text="a", clip=Clip())
    assert embeds.shape == (1, 77, 4)
    assert torch.equal(extra.pop("pooled_output"), torch.ones(1, 4))
    assert extra == {"hooks": "kept", "attention_mask": "kept, too"}
