"""The events of a training for the editor."""

from __future__ import annotations

from types import ModuleType

import pytest
from kit.pack import pack_module

pytestmark = pytest.mark.host


def test_the_end_is_sent_before_the_node_returns(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    module, statuses = pack_module(pack, "nodes.panel.monitor"), []
    monkeypatch.setattr(module.web_server, "send_event", lambda name, data: statuses.append(data["status"]))
    progress = module.TrainingProgress(module.Session(module.Key("p", "4", "w"), can_sample=True))
    progress.phase("training", 1)
    progress.end("complete")
    assert statuses == ["running", "complete"]
