"""The events of a training for the editor."""

from __future__ import annotations

import logging
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


def test_the_hosts_log_tells_of_a_long_training(pack: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    module, now = pack_module(pack, "nodes.panel.monitor"), [0.0]
    progress = module.TrainingProgress(module.Session(module.Key("p", "4", "w"), can_sample=True), lambda: now[0])
    with caplog.at_level(logging.INFO, "atelier"):
        progress.phase("training", 100)
        for step in range(1, 101):
            now[0] += 1
            progress.advance(step, f"step {step}/100")
    assert [record.getMessage() for record in caplog.records] == [
        f"Train LoRA: step {step}/100" for step in (1, 31, 61, 91)]
