"""Nodes that take lists: pictures, scores and values of which the numbers do not fit together."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from kit.node_calls import image_batch, run_node
from kit.pack import pack_module

pytestmark = pytest.mark.host


@pytest.fixture
def two_scores(pack: ModuleType) -> Any:
    """Scores of two pictures, of which the second is better."""
    names = ("result", "definitions", "crop")
    result, definitions, crop = (pack_module(pack, f"atelier.score.{name}") for name in names)
    items = tuple(result.Score(picture=number, text="a cat", cosine=value, value=value, tokens=4, cut=0)
                  for number, value in enumerate((0.2, 0.3)))
    return result.Scores(items=items, model="tiny", definition=definitions.Definition.COSINE, crop=crop.ClipCrop.CENTER)


@pytest.mark.parametrize("node", ["AtelierPickBest", "AtelierSaveTitled", "AtelierBlockGrid"])
@pytest.mark.parametrize("count", [1, 3])
def test_scores_of_other_pictures_are_refused(nodes: dict[str, Any], pack: ModuleType, two_scores: Any, node: str,
                                              count: int) -> None:
    """They would be written beside pictures that nobody scored."""
    extra = {"block": [1], "columns": [count]} if node == "AtelierBlockGrid" else {}
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError,
                       match=rf"There are {count} pictures and 2 scores\. Connect the .*score"):
        run_node(nodes[node], images=[image_batch(count)], scores=[two_scores], **extra)


def test_scores_of_the_same_pictures_are_taken(nodes: dict[str, Any], two_scores: Any) -> None:
    images = [image_batch(2)]
    best, chosen = run_node(nodes["AtelierPickBest"], images=images, scores=[two_scores])
    assert len(best) == 1 and (best[0] == images[0][1:]).all()
    assert [item.value for item in chosen.items] == [0.3]


@pytest.mark.parametrize("values", [[], [1, 2], [1, 2, 3]])
def test_several_values_for_one_widget_are_refused(nodes: dict[str, Any], pack: ModuleType, two_scores: Any,
                                                   values: list[int]) -> None:
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError,
                       match=f"{len(values)} values arrive where one is taken"):
        run_node(nodes["AtelierPickBest"], images=[image_batch(2)], scores=[two_scores], k=values)
