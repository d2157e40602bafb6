"""Which nodes a prompt is run for."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


PROMPT = {
    "1": node("AtelierConvertCheckpoint", checkpoint="a"), "2": node("AtelierImageFolder", folder="b"),
    "3": node("AtelierTrainLora", model=["1", 0], training_set=["2", 0], name="c"),
    "4": node("SaveImage", images=["3", 3]), "5": node("AtelierImageFolder", folder="d"),
    "6": node("PreviewAny", source=["2", 0]), "7": node("Text"), "8": node("AtelierTokens", text=["7", 0]),
}


@pytest.fixture
def without_sources(pack: ModuleType) -> Any:
    return pack_module(pack, "nodes.host.output_targets").without_sources


def refuses(*names: str) -> Any:
    return lambda prompt, name: name not in names


def test_what_a_refused_training_depends_on_is_not_run_for_itself(without_sources: Any) -> None:
    request = {"prompt": PROMPT, "client_id": "x"}
    changed = without_sources(request, refuses("3"))
    assert changed == {**request, "partial_execution_targets": ["3", "4", "5", "6", "7", "8"]}
    assert "partial_execution_targets" not in request


def test_other_prompts_are_left_as_they_are(without_sources: Any) -> None:
    chosen = {"prompt": PROMPT, "partial_execution_targets": ["2"]}
    loop = {"a": node("AtelierTrainLora", model=["a", 0], x=[], y=[["b"]], z=["gone", 0])}
    for request in (chosen, {}, {"prompt": None}, {"prompt": {"1": 3}}, {"prompt": loop},
                    {"prompt": {"1": {}, "2": {"class_type": "AtelierTrainLora", "inputs": []}}}):
        assert without_sources(request, refuses("a", "2", "3")) == request
    assert without_sources({"prompt": PROMPT}, refuses()) == {"prompt": PROMPT}


def test_the_host_is_asked_what_it_would_run(without_sources: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import execution

    asked: list[Any] = []

    async def validate(prompt_id: str, prompt: Any, targets: list[str]) -> Any:
        asked.append(targets)
        return (targets == ["7"], None, [], {})

    monkeypatch.setattr(execution, "validate_prompt", validate)
    prompt = {**PROMPT, "7": node("AtelierTrainLora", training_set=["5", 0])}
    assert without_sources({"prompt": prompt})["partial_execution_targets"] == ["3", "4", "5", "6", "7", "8"]
    assert asked == [["3"], ["7"]]

    async def wait(*_: Any) -> Any:
        await asyncio.sleep(0)

    monkeypatch.setattr(execution, "validate_prompt", wait)
    assert without_sources({"prompt": prompt}) == {"prompt": prompt}, "it cannot wait"
