"""The graph that Compare Models expands into."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
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
