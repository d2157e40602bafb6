"""Hub Dataset on a local data set, and Filler Images of its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kit.clip_models import random_pictures
from kit.node_calls import run_node

pytestmark = pytest.mark.host


def test_rows_are_filtered_and_used_as_fillers(nodes: dict[str, Any], in_input: Path) -> None:
    for name in ("red fox", "owl"):
        (in_input / name).mkdir()
        for number, picture in enumerate(random_pictures([(96, 64)] * 3, seed=len(name))):
            picture.save(in_input / name / f"{number}.png")
    data, = run_node(nodes["AtelierHubDataset"], dataset=str(in_input), column="label", value="red fox", limit=2,
                     caption="a {label}", trigger="sks", resolution=64)
    assert [sample.captions for sample in data.samples] == [("sks, a red fox",)] * 2
    fillers, sources = run_node(nodes["AtelierFillerImages"], folder="", count=2, training_set=data)
    assert len(fillers) == 2 and fillers[0].shape[1:3] == (64, 96)
    assert sorted(sources) == [sample.image.name for sample in data.samples]
