"""Train LoRA: what it asks the trainer for."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from kit.pack import node_classes, pack_module
from PIL import Image

pytestmark = pytest.mark.host


class Asked(Exception):
    """Ends the node once it has asked."""


def asked(pack: ModuleType, monkeypatch: pytest.MonkeyPatch, **inputs: Any) -> Any:
    """The training request of a node with these inputs, and pictures captioned "a red fox"."""
    requests: list[Any] = []

    def train(name: str, model: Any, data: Any, request: Any, *_: Any, **__: Any) -> None:
        requests.append(request)
        raise Asked

    monkeypatch.setattr(pack_module(pack, "atelier.train.run"), "train", train)
    types = pack_module(pack, "atelier.dataset.types")
    sample = types.Sample(image=Path("a.png"), captions=("a red fox", "another"), digest="00", size=(8, 8))
    node: Any = node_classes(pack)["AtelierTrainLora"]
    node.hidden = SimpleNamespace(extra_pnginfo=None)
    with pytest.raises(Asked):
        node.execute(model=None, training_set=types.TrainingSet(samples=(sample,)), name="x", seed=0,
                     **{"preset": "subject", "length": 0, "unit": "steps", **inputs})
    return requests[0]


@pytest.mark.parametrize(("inputs", "prompt"), [
    ({}, "a red fox"),
    ({"options": {"sample_prompt": "of the options"}}, "of the options"),
    ({"preset": "demo model"}, "a pencil sketch of a large red star, in the centre"),
    ({"sample_prompt": "my own", "options": {"sample_prompt": "of the options"}}, "my own"),
    ({"sample_prompt": " none ", "options": {"sample_prompt": "of the options"}}, ""),
])
def test_a_picture_is_drawn_without_further_wiring(pack: ModuleType, monkeypatch: pytest.MonkeyPatch,
                                                   inputs: dict[str, Any], prompt: str) -> None:
    assert asked(pack, monkeypatch, **inputs).samples.sample_prompt == prompt


def test_length_0_is_what_the_node_tells_of_the_preset(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    node: Any = node_classes(pack)["AtelierTrainLora"]
    inputs = {each.id: each for each in node.GET_SCHEMA().inputs}
    preset, length = inputs["preset"], inputs["length"]
    for name, told in preset.as_dict()["lengths"].items():
        request = asked(pack, monkeypatch, preset=name)
        assert told == (f"{request.steps} steps" if request.steps else f"{request.epochs} epochs")
        # Those named after a model are as long as the one for a subject, and too many to be told.
        named = pack_module(pack, "atelier.train.request.presets").OF_ONE_MODEL
        assert f"{told} for {'flow subject' if name in named else name}" in length.tooltip


def test_a_stopped_training_runs_again_once_it_was_asked_to_go_on(pack: ModuleType) -> None:
    """The host would take the result of the stopped one from its cache."""
    node: Any = node_classes(pack)["AtelierTrainLora"]
    sessions = pack_module(pack, "nodes.panel.monitor").sessions
    before = node.fingerprint_inputs(name="x")
    assert node.fingerprint_inputs(name="x") == before
    session = pack_module(pack, "nodes.panel.sessions").Session(
        pack_module(pack, "nodes.panel.sessions").Key("p", "4", "w"), can_sample=True)
    session.end("stopped by user")
    sessions.request_continue([session])
    assert node.fingerprint_inputs(name="x") != before


@pytest.mark.parametrize(("reused", "stopped", "told"), [
    (False, False, "complete"), (True, False, "reused"), (True, True, "complete"), (False, True, "complete")])
@pytest.mark.parametrize("drawn", [0, 2])
def test_the_outputs_are_those_of_the_finished_run(pack: ModuleType, models: Path, monkeypatch: pytest.MonkeyPatch,
                                                   reused: bool, stopped: bool, told: str, drawn: int) -> None:
    """A run that was stopped says so even when it is found again: it can go on."""
    module = pack_module(pack, "nodes.train_lora")
    pictures = [models / f"{name}.png" for name in ("plot", "one", "two")]
    for path in pictures:
        Image.new("RGB", (16, 8)).save(path)
    for name in ("load_lora", "kohya_state"):
        library = "file" if name == "load_lora" else "formats"
        monkeypatch.setattr(pack_module(pack, f"atelier.lora.{library}"), name, lambda *given: "weights")
    steps = [models / "loras" / name for name in ("x-10.safetensors", "x.safetensors")]
    report = SimpleNamespace(folder=SimpleNamespace(plot=pictures[0], samples=pictures[1:1 + drawn]), reused=reused,
                             result=SimpleNamespace(stopped=stopped, status="complete"), text=lambda: "20 steps",
                             lora=steps[1], steps=steps)
    ends: list[tuple[str, str]] = []
    progress = SimpleNamespace(end=lambda status, message: ends.append((status, message)), run="r")
    node = node_classes(pack)["AtelierTrainLora"]
    monkeypatch.setattr(node, "hidden", None)  # another test may have left a graph
    done = module._output(node, report, progress, "no trigger")
    state, name, plot, samples, text, saved = done.result
    assert ends == [(told, "no trigger")]
    assert (state, name, text, saved) == ("weights", "x.safetensors", "20 steps\nno trigger",
                                          "x-10.safetensors\nx.safetensors")
    assert plot.shape == (1, 8, 16, 3)
    assert samples.shape[0] == drawn if drawn else type(samples).__name__ == "ExecutionBlocker"
    assert len(done.ui["images"]) == 1 + drawn and done.ui["run"] == ("r",)
