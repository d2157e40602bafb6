"""The trainer tells a person who teaches a common word, in its report and in the log."""

from __future__ import annotations

import pytest
from kit.graphs import Graph
from kit.host import Host
from kit.shapes import draw_shapes

pytestmark = [pytest.mark.host, pytest.mark.slow]


def test_a_common_trigger_is_reported_and_a_rare_one_is_not(host: Host, checkpoint: str) -> None:
    folder = draw_shapes(host.base / "input" / "trigger words", count=3, size=64)
    reports = []
    for word in ("dog", "ohwx"):
        before = len(host.log())
        result = host.queue(Graph(
            model=("AtelierOpenModel", {"model": checkpoint, "prediction_type": "auto"}),
            data=("AtelierImageFolder", {"folder": folder.name, "resolution": 64, "captions": "template",
                                         "caption": "a photo of {trigger}", "trigger": word}),
            options=("AtelierTrainingOptions", {"monitor": "off", "patience": 0, "holdout": False}),
            train=("AtelierTrainLora", {"model": ["model", 0], "training_set": ["data", 0], "options": ["options", 0],
                                        "name": f"trigger {word}", "length": 1, "sample_prompt": "none"}),
            report=("PreviewAny", {"source": ["train", 4]})).fill(host))
        assert result.status == "success", result.error
        reports.append((result.text("report"), host.log()[before:]))
    assert all("The trigger 'dog' is a common word" in text for text in reports[0])
    assert not any("is a common word" in text for text in reports[1])
