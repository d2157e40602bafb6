"""The graphs that Compare Models and XY Grid expand into, and the parts of them that measure."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from kit.node_calls import run_node
from kit.pack import pack_module

pytestmark = pytest.mark.host


class Nodes:
    """Stands for the host's graph builder: a node is its number, a link (number, slot)."""

    def __init__(self) -> None:
        self.made: list[tuple[str, dict[str, Any]]] = []

    def node(self, kind: str, **inputs: Any) -> Any:
        self.made.append((kind, inputs))
        number = len(self.made) - 1
        return SimpleNamespace(out=lambda slot: (number, slot))

    def finalize(self) -> list[str]:
        return [kind for kind, _ in self.made]

    def inputs(self, kind: str) -> list[dict[str, Any]]:
        return [inputs for made, inputs in self.made if made == kind]


def test_a_model_is_loaded_after_the_one_before_has_drawn_and_only_where_pictures_are_missing(
        pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, compared = pack_module(pack, "nodes.comparison_graph"), pack_module(pack, "atelier.compare.compared_model")
    monkeypatch.setattr(module.folders, "work_folder", lambda name: tmp_path)
    first, second = (compared.ComparedModel(checkpoint=name, sampler="euler", scheduler="normal", steps=2, cfg=7.0)
                     for name in ("a", "b"))
    request = pack_module(pack, "nodes.comparison").ComparisonRequest(
        prompts=("a fox",), negative="", seeds=(1,), size=(64, 64))
    graph, keys = Nodes(), {(0, 0, 1): "there", (1, 0, 1): "second", (2, 0, 1): "third"}
    (tmp_path / "there.png").touch()
    last = module.add_pictures(graph, (first, second, first), request, keys)
    drawn = {inputs["key"]: number for number, (kind, inputs) in enumerate(graph.made) if "Picture" in kind}
    assert list(drawn) == ["second", "third"] and last == (drawn["third"], 0)
    gates = {inputs["value"]: inputs.get("after") for _, inputs in graph.made if inputs.get("value") in ("a", "b")}
    assert gates == {"b": None, "a": (drawn["second"], 0)}
    assert module.add_pictures(Nodes(), (first,), request, keys) is None


@pytest.mark.parametrize(("module", "node"), [("compare_models", "CompareModels"), ("xy_grid", "XYGrid")])
def test_a_missing_clip_model_is_reported_before_anything_is_drawn(pack: ModuleType, module: str, node: str,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that comes by a link is not validated before the run."""
    found = pack_module(pack, f"nodes.{module}")
    monkeypatch.setattr(found, "graph_builder", lambda: pytest.fail("the graph of pictures was begun"))
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match="CLIP model 'gone' in models/clip_sc"):
        run_node(getattr(found, node), models=(object(),), score_model="gone")


def compared(pack: ModuleType, **changes: Any) -> Any:
    module = pack_module(pack, "atelier.compare.compared_model")
    return module.ComparedModel(**{"checkpoint": "a.safetensors", "sampler": "euler", "scheduler": "normal", "steps": 2,
                                   "cfg": 7.5, **changes})


@pytest.fixture
def graph(pack: ModuleType, models: Path, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """The graph that a node expands into, where the checkpoints a and b are."""
    for name in ("a", "b"):
        (models / "checkpoints" / f"{name}.safetensors").touch()
    made = Nodes()
    for name in ("compare_models", "xy_grid"):
        monkeypatch.setattr(pack_module(pack, f"nodes.{name}"), "graph_builder", lambda: made)
    return made


@pytest.mark.parametrize("prompts", ["", " \n\n  "])
def test_a_comparison_needs_a_prompt(pack: ModuleType, nodes: dict[str, Any], prompts: str) -> None:
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match=r"no prompts to compare with.*one line"):
        run_node(nodes["AtelierCompareModels"], models=(compared(pack),), prompts=prompts)


@pytest.mark.parametrize("count", [0, 2])
def test_a_grid_takes_one_model(pack: ModuleType, nodes: dict[str, Any], count: int) -> None:
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError,
                       match=rf"{count} models arrive where one is taken.*as the values of an axis"):
        run_node(nodes["AtelierXYGrid"], models=(compared(pack),) * count)


def test_every_model_draws_every_prompt_with_every_seed(pack: ModuleType, nodes: dict[str, Any], graph: Nodes) -> None:
    models = (compared(pack), compared(pack, checkpoint="b.safetensors"), compared(pack, cfg=3.0))
    outputs = run_node(nodes["AtelierCompareModels"], models=models, prompts=" a fox \n\na hen\na fox", seed=5, seeds=2)
    result, = graph.inputs("AtelierComparisonResult")
    assert outputs == tuple((len(graph.made) - 1, slot) for slot in range(5))
    plan = json.loads(result["plan"])
    assert plan["models"] == ["a", "b", "a (2)"] and plan["prompts"] == ["a fox", "a hen"] and plan["seeds"] == [5, 6]
    assert [tuple(place[:3]) for place in plan["images"]] == [
        (m, p, s) for m in range(3) for p in range(2) for s in (5, 6)]
    assert len({key for *_, key in plan["images"]}) == len(graph.inputs("KSampler")) == 12
    assert [inputs["cfg"] for inputs in graph.inputs("KSampler")] == [7.5] * 8 + [3.0] * 4
    assert len(graph.inputs("CheckpointLoaderSimple")) == 2, "the third has the file of the first"
    assert result["after"] == (len(graph.made) - 2, 0), "it would come before the last picture"


def test_a_changed_file_is_drawn_again(pack: ModuleType, nodes: dict[str, Any], graph: Nodes, models: Path) -> None:
    def keys(**inputs: Any) -> list[str]:
        run_node(nodes["AtelierCompareModels"], models=(compared(pack),), **{"prompts": "a fox", "seeds": 1, **inputs})
        return [key for *_, key in json.loads(graph.inputs("AtelierComparisonResult")[-1]["plan"])["images"]]

    before = keys()
    assert keys() == before
    assert before not in (keys(negative="dull"), keys(width=64), keys(height=64), keys(seed=1), keys(prompts="a hen"))
    (models / "checkpoints" / "a.safetensors").write_bytes(b"another")
    assert keys() != before


def test_a_grid_says_which_picture_is_which_cell(pack: ModuleType, nodes: dict[str, Any], graph: Nodes) -> None:
    outputs = run_node(nodes["AtelierXYGrid"], models=(compared(pack),), x="cfg", x_values="3, 4", y="checkpoint",
                       y_values="*", prompt=" a fox ")
    number = len(graph.made) - 1
    assert outputs == tuple((number, slot) for slot in (0, 2, 3, 4)), "a grid has no chart of its own"
    plan = json.loads(graph.inputs("AtelierComparisonResult")[0]["plan"])
    assert plan["prompts"] == ["a fox"]
    assert plan["xy"]["columns"] == ["cfg 3", "cfg 4"] and plan["xy"]["rows"] == ["a", "b"]
    assert plan["xy"]["x_name"] == "cfg" and plan["xy"]["y_name"] == "checkpoint"
    assert "a, 2 steps, cfg 3, euler normal" in plan["models"]
    places = {tuple(place): position for *place, position, _, _ in plan["xy"]["cells"]}
    assert {place: plan["models"][model].split(",")[0] for place, model in places.items()} == {
        (i, j): "ab"[j] for i in range(2) for j in range(2)}
    assert len(graph.inputs("KSampler")) == 4


def test_loras_and_precisions_come_between_loader_and_sampler(pack: ModuleType, graph: Nodes, models: Path) -> None:
    module, request = pack_module(pack, "nodes.comparison_graph"), pack_module(pack, "nodes.comparison")
    tuned = compared(pack, lora="l.safetensors", strength=0.5, precision="fp16")
    module.add_pictures(graph, (tuned,), request.ComparisonRequest(("a fox",), "dull", (1,), (64, 32)),
                        {(0, 0, 1): "key"})
    kinds = graph.finalize()
    lora, = graph.inputs("LoraLoader")
    assert (lora["lora_name"], lora["strength_model"], lora["strength_clip"]) == ("l.safetensors", 0.5, 0.5)
    assert (lora["model"], lora["clip"]) == tuple((kinds.index("CheckpointLoaderSimple"), slot) for slot in (0, 1))
    precision, = graph.inputs("ModelComputeDtype")
    assert precision == {"model": (kinds.index("LoraLoader"), 0), "dtype": "fp16"}
    assert {inputs["clip"] for inputs in graph.inputs("CLIPTextEncode")} == {(kinds.index("LoraLoader"), 1)}
    assert graph.inputs("KSampler")[0]["model"] == (kinds.index("ModelComputeDtype"), 0)
    assert graph.inputs("EmptyLatentImage") == [{"width": 64, "height": 32, "batch_size": 1}]


def test_a_lora_without_strength_is_not_loaded(pack: ModuleType, graph: Nodes, models: Path) -> None:
    module, request = pack_module(pack, "nodes.comparison_graph"), pack_module(pack, "nodes.comparison")
    module.add_pictures(graph, (compared(pack, lora="l.safetensors", strength=0.0),),
                        request.ComparisonRequest(("a fox",), "", (1,), (64, 64)), {(0, 0, 1): "key"})
    assert not graph.inputs("LoraLoader") and not graph.inputs("ModelComputeDtype")


def test_a_model_to_compare_joins_the_others(pack: ModuleType, nodes: dict[str, Any], graph: Nodes, models: Path
                                             ) -> None:
    node, first = nodes["AtelierModelToCompare"], compared(pack)
    (models / "loras" / "l.safetensors").touch()
    own = {"sampler": "euler", "scheduler": "karras", "steps": 3, "cfg": 2.0, "others": (first,)}
    plain, = run_node(node, checkpoint="b.safetensors", lora="none", **own)
    assert plain[0] is first and (plain[1].name, plain[1].lora, plain[1].scheduler) == ("b", "", "karras")
    linked, = run_node(node, checkpoint="b.safetensors", lora="none", lora_name="l.safetensors", **own)
    assert linked[1].lora == "l.safetensors"
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match="gone"):
        run_node(node, checkpoint="b.safetensors", lora="none", lora_name="gone", **own)


@pytest.mark.parametrize(("given", "expected"), [
    ({}, ("dpmpp_2m", "karras", 25, 6.5)), ({"sampler": "euler"}, ("euler", "karras", 25, 6.5)),
    ({"scheduler": "simple"}, ("dpmpp_2m", "simple", 25, 6.5)), ({"steps": 4}, ("dpmpp_2m", "karras", 4, 6.5)),
    ({"cfg": 1.5}, ("dpmpp_2m", "karras", 25, 1.5))])
def test_what_is_not_chosen_is_advised_by_the_model(pack: ModuleType, nodes: dict[str, Any], graph: Nodes,
                                                    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any],
                                                    expected: tuple[Any, ...]) -> None:
    advice = SimpleNamespace(sampler="dpmpp_2m", scheduler="karras", steps=25, cfg=6.5)
    monkeypatch.setattr(pack_module(pack, "atelier.compare.compared_model"), "advice_for", lambda path, lora: advice)
    by_model = pack_module(pack, "nodes.model_to_compare")._BY_MODEL
    (model,), = run_node(nodes["AtelierModelToCompare"], checkpoint="a.safetensors", lora="none", **{
        "sampler": by_model, "scheduler": by_model, "steps": 0, "cfg": 0.0, **given})
    assert (model.sampler, model.scheduler, model.steps, model.cfg) == expected


def drawn(nodes: dict[str, Any], key: str, shade: float) -> None:
    """Store a picture of one shade, as if it had taken two seconds."""
    nodes["AtelierComparisonPicture"].execute(image=torch.full((1, 8, 16, 3), shade), key=key,
                                              started=time.monotonic() - 2, loading=True)


def test_a_picture_is_kept_with_the_time_it_took(pack: ModuleType, nodes: dict[str, Any], models: Path) -> None:
    drawn(nodes, "one", 1.0)
    folder = pack_module(pack, "nodes.host.folders").work_folder("comparisons")
    measured = json.loads((folder / "one.json").read_text(encoding="utf-8"))
    assert 2 <= measured["seconds"] < 12 and measured["loading"] is True
    assert (folder / "one.png").is_file()


def test_the_result_shows_pictures_in_the_order_of_the_plan(nodes: dict[str, Any], models: Path) -> None:
    for key, shade in (("dark", 0.0), ("light", 1.0)):
        drawn(nodes, key, shade)
    plan = {"models": ["m", "n"], "prompts": ["a fox"], "seeds": [1], "images": [[0, 0, 1, "light"], [1, 0, 1, "dark"]]}
    grid, chart, table, csv, pictures = run_node(nodes["AtelierComparisonResult"], plan=json.dumps(plan), cell=16)
    assert pictures.mean(dim=(1, 2, 3)).tolist() == [1.0, 0.0]
    assert grid.shape[0] == chart.shape[0] == 1 and "m" in table and len(csv.strip().splitlines()) == 3
    xy = {"x_name": "cfg", "y_name": "seed", "columns": ["cfg 3", "cfg 4"], "rows": ["seed 1"],
          "cells": [[0, 0, 1, 0, 1], [1, 0, 0, 0, 1]]}
    *_, cells = run_node(nodes["AtelierComparisonResult"], plan=json.dumps({**plan, "xy": xy}), cell=16)
    assert cells.mean(dim=(1, 2, 3)).tolist() == [0.0, 1.0], "in the order of the cells"


def test_the_gate_hands_on_its_value_and_never_an_old_time(nodes: dict[str, Any]) -> None:
    gate = nodes["AtelierComparisonGate"]
    before = time.monotonic()
    value, started = run_node(gate, value="a.safetensors")
    assert value == "a.safetensors" and before <= started <= time.monotonic()
    assert before <= gate.fingerprint_inputs() <= time.monotonic()
